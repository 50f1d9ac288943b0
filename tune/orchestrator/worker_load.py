"""Read from counters how requests spread over the workers, and when workers and frontends hold none."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.managed_process import POLL_S, PrintLine, format_counts
from tune.orchestrator.worker_metrics import request_counts

REPORT_INTERVAL_S = 30.0
"""Seconds between two lines about requests that workers hold while the next run waits."""

MIN_REQUESTS_PER_WORKER = 20
"""Mean requests for each worker of a pool from which on a worker without any was left out, not unlucky.

Under random routing to 14 workers, a worker that serves stays without a request in e^-20 of all runs.
"""


def require_all_workers_used(
    deployment: Deployment, before: Mapping[str, float], print_line: PrintLine
) -> None:
    """Raise AttemptFailed where a worker received nothing since `before` while its pool was busy.

    Print how many workers have no counter, so that nobody knows.
    """
    received = increase(before, worker_request_counts(deployment))
    workers = deployment.workers()
    uncounted = sum(worker.name not in received for worker in workers)
    if uncounted:
        print_line(
            f"requests of {uncounted} of {len(workers)} workers are not counted: whether the run spread over "
            "all of them is unknown"
        )
    for of_role in deployment.pools():
        pool = [worker for worker in of_role if worker.name in received]
        counts = [received[worker.name] for worker in pool]
        if pool and not min(counts) and sum(counts) >= MIN_REQUESTS_PER_WORKER * len(pool):
            raise AttemptFailed(
                f"The requests of the run did not spread over the {pool[0].role} workers: "
                f"{format_counts(pool, received)}. Expected some for each; the figures would be those of "
                "another split. See the frontend's log."
            )


def worker_request_counts(deployment: Deployment) -> dict[str, float]:
    """Return by name how many requests each worker with a counter has received. Raises AttemptFailed."""
    try:
        return request_counts(deployment.workers(), deployment.nodes, deployment.manifest.engine.requests)
    except OSError as error:
        raise _unreachable_process(deployment, error) from error


def wait_until_drained(
    deployment: Deployment, print_line: PrintLine, limit_s: float | None = None
) -> list[Process]:
    """Return once no worker and no frontend holds a request; print how many are held after `stop_s` seconds.

    Without `limit_s` it then returns with requests held: these end with their workers. With `limit_s`
    another run is to follow, so it keeps waiting, and raises AttemptFailed after `limit_s` seconds. Processes
    whose requests are not counted are printed, and returned.
    """
    started_s, report_after_s = time.monotonic(), deployment.manifest.deadlines.stop_s
    while True:
        deployment.require_alive()
        in_flight, uncounted = _requests_in_flight(deployment)
        if not in_flight:
            _report_uncounted(uncounted, print_line)
            return uncounted
        waited_s = time.monotonic() - started_s
        if limit_s is not None and waited_s > limit_s:
            raise AttemptFailed(
                f"{in_flight:.0f} requests of a run are still held by workers or frontends {waited_s:.0f} s "
                f"after its end; expected none within load.response_timeout_s={limit_s:g}, before the next "
                "run begins."
            )
        if waited_s > report_after_s:
            what = "they are stopped with them" if limit_s is None else "the next run waits"
            print_line(f"{in_flight:.0f} requests are still held by workers or frontends; {what}")
            if limit_s is None:
                _report_uncounted(uncounted, print_line)
                return uncounted
            report_after_s = waited_s + REPORT_INTERVAL_S
        time.sleep(POLL_S)


def _report_uncounted(uncounted: Sequence[Process], print_line: PrintLine) -> None:
    """Print which processes do not say how many requests they hold."""
    if uncounted:
        names = ", ".join(process.name for process in uncounted)
        print_line(f"requests held by {names} are not counted: whether any are left there is unknown")


def _requests_in_flight(deployment: Deployment) -> tuple[float, list[Process]]:
    """Return how many requests the deployment holds, at least, and whose are not counted.

    A request at a worker is one at a frontend too, unless its client has gone; one that waits there to be
    routed is at no worker. Raises AttemptFailed.
    """
    nodes, engine = deployment.nodes, deployment.manifest.engine
    workers, frontends = deployment.workers(), deployment.frontends()
    try:
        at_workers = request_counts(workers, nodes, engine.in_flight)
        at_frontends = request_counts(frontends, nodes, engine.frontend_in_flight)
    except OSError as error:
        raise _unreachable_process(deployment, error) from error
    counted = at_workers | at_frontends
    uncounted = [process for process in (*frontends, *workers) if process.name not in counted]
    return max(sum(at_workers.values()), sum(at_frontends.values())), uncounted


def _unreachable_process(deployment: Deployment, error: OSError) -> AttemptFailed:
    """Return the error of a process that does not answer; raise instead that one has ended."""
    deployment.require_alive()
    return AttemptFailed(f"A process does not report its counters: {error}. See its log.")


def increase(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each count has grown since `before`; a metric may appear with its first request."""
    return {name: value - before.get(name, 0.0) for name, value in now.items()}
