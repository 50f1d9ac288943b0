"""One attempt, from free ports to its record: the same on a laptop and in an allocation."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tune.client.client_settings import read_client_settings
from tune.errors import TuneError
from tune.manifest.process_manifest import read_manifest
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AllocationRevoked, AttemptFailed, FailureCause
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher
from tune.orchestrator.managed_process import PrintLine
from tune.orchestrator.phases import PhaseTimer
from tune.orchestrator.preflight import require_free_ports
from tune.orchestrator.probes import ProbeRunner
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.readiness import ProgressDeadline, bring_up
from tune.orchestrator.supervision.signals import Interrupted, defer_signals
from tune.orchestrator.warm_up import wait_until_drained, warm_up
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import trial_of, write_attempt

INTERRUPTED = 130

_LAST_WORD_S = 2.0
"""For a client to write what it knows; and, interrupted, for all: soon Slurm kills what is left, KillWait."""

Allocated = Callable[[int], NodeAddresses]
"""The hosts for so many node indices; those with the name of node 0 are this host."""


@dataclass(frozen=True)
class _Begun:
    """An attempt that runs since `at`, which is `at_s` of the monotonic clock."""

    attempt: Path
    at: datetime
    at_s: float
    say: PrintLine
    stopwatch: PhaseTimer

    @property
    def lasts_s(self) -> float:
        return time.monotonic() - self.at_s

    def record(self, error: str | None, cause: FailureCause | None) -> None:
        """Write attempt.json."""
        record = AttemptRecord(
            started_at=self.at.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            held_s=self.lasts_s,
            error=error,
            cause=cause,
            phases=self.stopwatch.record(),
        )
        write_attempt(self.attempt, record)
        self.say(f"attempt {self.attempt.name}: {'measured' if error is None else error.splitlines()[0]}")


def run_attempt(
    attempt: Path, allocated: Allocated, starter: ProcessLauncher, say: PrintLine, held: ManagedProcesses
) -> int:
    """Run the trial's plan and leave attempt.json in the folder `attempt`, whatever happens.

    When this returns, everything in `held` has ended, or is what the next attempt may keep. Exit code: 0 the
    probe is there, 1 the point is wrong, 3 the world is, 130 interrupted, which no further attempt should
    follow.
    """
    begun = _Begun(attempt, datetime.now(UTC), time.monotonic(), say, PhaseTimer())
    try:
        error, cause, code = _tried(begun, allocated, starter, held)
    except (KeyboardInterrupt, AllocationRevoked) as stop:
        why = starter.interruption(stop.number) if isinstance(stop, Interrupted) else str(stop)
        error, cause, code = f"{why} after {begun.lasts_s:.0f} s", "infrastructure", INTERRUPTED
        held.hurry(_LAST_WORD_S)
    with defer_signals(last=held.last or code == INTERRUPTED):
        held.stop_client(_LAST_WORD_S)
        begun.record(error, cause)  # before the rest is stopped: little time may be left
        held.settle(measured=error is None)
    return code


def _tried(
    begun: _Begun, allocated: Allocated, starter: ProcessLauncher, held: ManagedProcesses
) -> tuple[str | None, FailureCause | None, int]:
    """What broke and whose fault it is, None where nothing did; the exit code. Raises Withdrawn."""
    try:
        _run(begun, allocated, starter, held)
    except AllocationRevoked:
        raise
    except AttemptFailed as broken:
        return str(broken), broken.cause, 1 if broken.cause == "configuration" else 3
    except TuneError as known:
        return str(known), "infrastructure", 3
    except Exception:  # a fault of ours fails the attempt with its trace; the study goes on
        return traceback.format_exc(), "infrastructure", 3
    return None, None, 0


def _run(begun: _Begun, allocated: Allocated, starter: ProcessLauncher, held: ManagedProcesses) -> None:
    plan = trial_of(begun.attempt).plan
    launch = read_manifest(plan)
    nodes = allocated(launch.nodes)
    held.retain(launch, plan)
    if not held.running:
        require_free_ports(launch, local_nodes(nodes))
    deployment = Deployment(launch, nodes, starter, held.running, plan=plan, raw=begun.attempt)
    _measure(deployment, begun, plan)


def local_nodes(nodes: NodeAddresses) -> dict[int, str]:
    """Index and address of the nodes that are the host of node 0, where an orchestrator runs."""
    known = zip(nodes.hosts, nodes.addresses, strict=True)
    return {index: address for index, (host, address) in enumerate(known) if host == nodes.hosts[0]}


def _measure(deployment: Deployment, begun: _Begun, plan: Path) -> None:
    settings = read_client_settings(plan / "client.json", deployment.bind(deployment.launch.endpoint_url))
    limits, say = deployment.launch.deadlines, begun.say
    with begun.stopwatch.phase("bring_up_s"):
        bring_up(deployment, ProgressDeadline(limits.quiet_s, limits.ready_s), say)
    with begun.stopwatch.phase("warm_up_s"):
        warm_up(deployment, settings, say)
        wait_until_drained(deployment, say)
    probes = ProbeRunner(deployment, begun.attempt, begun.stopwatch, say)
    if settings.load.mode == "capacity":
        probes.find_capacity(settings)
    else:
        probes.run_once()
