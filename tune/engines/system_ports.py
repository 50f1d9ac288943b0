"""Check the ports of workers behind Dynamo, each of which has one for /health and /metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tune.spec.findings import Finding
from tune.spec.trial import TrialSpec

HIGHEST_SYSTEM_PORT = 32767
"""Dynamo reads DYN_SYSTEM_PORT as a signed 16-bit number. Source: lib/runtime/src/config.rs."""


def check_ports(spec: TrialSpec, services: Sequence[int], offsets: Sequence[int] = (0,)) -> Iterator[Finding]:
    """Yield a missing system port, one beyond Dynamo's range, and ports that two processes would share.

    The ports of the frontends are counted too.

    Parameters
    ----------
    spec
        Gives the system port and the number of workers.
    services
        Ports of the services.
    offsets
        Distances from a worker's system port to each port that it listens on.
    """
    first, workers = spec.stack.system_port, sum(pool.workers for pool in spec.pools)
    if first is None:
        yield Finding(
            "error",
            "stack.system_port",
            "null",
            "a port",
            "every worker needs one for /health and /metrics",
            "tune/orchestrator",
        )
        return
    last = first + workers - 1
    if last > HIGHEST_SYSTEM_PORT:
        yield Finding(
            "error",
            "stack.system_port",
            f"{first} for {workers} workers, which ends at {last}",
            f"{HIGHEST_SYSTEM_PORT} at most for the last",
            "Dynamo reads DYN_SYSTEM_PORT as a signed 16-bit number",
            "Dynamo 1.6.1, lib/runtime/src/config.rs",
        )
    frontends = range(spec.stack.frontend_port, spec.stack.frontend_port + spec.split.frontends)
    of_workers = [first + offset + worker for offset in offsets for worker in range(workers)]
    shared = sorted(port for port, uses in Counter((*frontends, *services, *of_workers)).items() if uses > 1)
    if shared:
        yield Finding(
            "error",
            "stack",
            f"ports given twice: {', '.join(map(str, shared))}",
            f"different ports for frontends, services and workers ({_ranges(first, workers, offsets)})",
            "they share a node: with cluster=local all of them",
            "tune/engines/system_ports.py",
        )


def _ranges(first: int, workers: int, offsets: Sequence[int]) -> str:
    """Return the first and the last port of each kind that workers have."""
    return ", ".join(f"{first + offset} to {first + offset + workers - 1}" for offset in offsets)
