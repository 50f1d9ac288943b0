"""Read the counters of frontend and workers over HTTP."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

from tune.analysis.counter_values import counter_value
from tune.manifest.engine_signals import WorkerCounter
from tune.manifest.process import Process
from tune.orchestrator.launcher import NodeAddresses
from tune.records.scrapes import parse_samples

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
    processes: Sequence[Process], nodes: NodeAddresses, counter: WorkerCounter
) -> dict[str, float]:
    """Return by name what `counter` says of each worker or frontend.

    What is not counted is left out: a process without a metrics port, or of a release without the metric.
    Raises OSError, which names the process that does not answer.
    """
    found = {}
    for process in processes:
        if process.metrics_port is None:
            continue
        try:
            value = counter_value(scrape(process, nodes), counter)
        except OSError as error:
            raise OSError(f"{process.name} on {nodes.hosts[process.node_index]}: {error}") from error
        if value is not None:
            found[process.name] = value
    return found
