"""Read the counters of frontend and workers over HTTP."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException

from tune.manifest.engine_signals import WorkerCounter
from tune.manifest.process import Process
from tune.orchestrator.launcher import NodeAddresses
from tune.records.scrapes import parse_samples, total

_TIMEOUT_S = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def scrape(process: Process, nodes: NodeAddresses) -> dict[str, float]:
    """Return all samples of a process with a metrics port. Raises OSError where it does not answer."""
    url = f"http://{nodes.addresses[process.node_index]}:{process.metrics_port}/metrics"
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_S) as answer:
            return parse_samples(answer.read().decode("utf-8", "replace"))
    except HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error


def request_counts(
    workers: Sequence[Process], nodes: NodeAddresses, counter: WorkerCounter
) -> dict[str, float]:
    """Return by name how many requests each worker with a metrics port has received.

    Raises OSError, which names the worker that does not answer.
    """
    return {name: value or 0.0 for name, value in _ask(workers, nodes, counter).items()}


def requests_in_flight(processes: Sequence[Process], nodes: NodeAddresses, counter: WorkerCounter) -> float:
    """Return how many requests these processes, workers or frontends, hold together.

    Raises OSError, which names the process that does not answer.
    """
    return sum(value or 0.0 for value in _ask(processes, nodes, counter).values())


def _ask(
    processes: Sequence[Process], nodes: NodeAddresses, counter: WorkerCounter
) -> Mapping[str, float | None]:
    """Return the value of `counter` of each process with a metrics port, by name."""
    found = {}
    for process in processes:
        if process.metrics_port is None:
            continue
        try:
            samples = scrape(process, nodes)
        except OSError as error:
            raise OSError(f"{process.name} on {nodes.hosts[process.node_index]}: {error}") from error
        found[process.name] = total(samples, counter.name, **counter.labels)
    return found
