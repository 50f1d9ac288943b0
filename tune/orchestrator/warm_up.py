"""Send requests until every worker has served some; check after a run that every worker did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint
from tune.client.prompts import Prompts
from tune.client.schedule import Schedule, draw_schedule
from tune.client.sse_response import StreamedResponse
from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.managed_process import POLL_S, PrintLine, format_counts
from tune.orchestrator.worker_metrics import request_counts, requests_in_flight

OUTPUT_TOKENS = 8
"""Tokens of each answer in the warm-up."""
MAX_ROUNDS = 20
"""Rounds of the warm-up, in each of which as many requests are sent as the larger pool has workers.

Under random routing to 14 workers, a worker that serves stays without a request in e^-20 of all runs.
Formula: (1 - 1/n)^(20 n).
"""

ERROR_PAUSE_S = 0.5
"""Seconds between rounds where requests fail: a frontend that has just found its workers gets ten seconds."""

PROMPT_SEED_OFFSET = 1_000_003
"""Added to the shuffle seed of the run: comparisons of shuffles use the next few seeds."""

REPORT_INTERVAL_S = 30.0
"""Seconds between two lines about requests that workers hold while the next run waits."""

MIN_REQUESTS_PER_WORKER = 20
"""Mean requests for each worker of a pool from which on a worker without any was left out, not unlucky.

Under random routing to 14 workers, a worker that serves stays without a request in e^-20 of all runs.
"""


def warm_up(deployment: Deployment, settings: ClientSettings, print_line: PrintLine) -> None:
    """Send rounds of requests until the counter of each worker has moved and a round had no error.

    Prompts have the median length of the run's prompts. Generated prompts share no prefix with the run's
    prompts. Raises AttemptFailed, with the counts of all workers, where a process ends or a
    worker is left out.
    """
    workers = deployment.workers()
    size = max(len(deployment.workers(role)) for role in ("prefill", "decode"))
    bodies = _request_bodies(settings, MAX_ROUNDS * size)
    before = worker_request_counts(deployment)
    print_line(f"warming up {len(workers)} workers")
    for number in range(MAX_ROUNDS):
        try:
            error = asyncio.run(_round(deployment, settings, bodies[number * size : (number + 1) * size]))
        except TimeoutError:
            limit = f"{deployment.manifest.deadlines.quiet_s:g} s (cluster.deadlines.quiet_s)"
            received = _increase(before, worker_request_counts(deployment))
            raise AttemptFailed(
                f"No answer came in the warm-up for {limit}.{_describe_counts(workers, received)}",
                deployment.waiting_cause(),
            ) from None
        received = _increase(before, worker_request_counts(deployment))
        if not error and all(received.values()):
            print_line(f"every worker has worked, after {number + 1} rounds of warm-up")
            return
        if error:
            time.sleep(ERROR_PAUSE_S)
    raise AttemptFailed(
        f"{MAX_ROUNDS} rounds of warm-up did not reach every worker without an error."
        + (f" The last error: {error}." if error else "")
        + _describe_counts(workers, received)
    )


def require_all_workers_used(deployment: Deployment, before: Mapping[str, float]) -> None:
    """Raise AttemptFailed where a worker received nothing since `before` while its pool was busy."""
    received = _increase(before, worker_request_counts(deployment))
    for role in ("prefill", "decode"):
        pool = [worker for worker in deployment.workers(role) if worker.name in received]
        counts = [received[worker.name] for worker in pool]
        if pool and not min(counts) and sum(counts) >= MIN_REQUESTS_PER_WORKER * len(pool):
            raise AttemptFailed(
                f"The requests of the run did not spread over the {role} workers: "
                f"{format_counts(pool, received)}. Expected some for each; the figures would be those of "
                "another split. See the frontend's log."
            )


def worker_request_counts(deployment: Deployment) -> dict[str, float]:
    """Return by name how many requests each worker with a counter has received. Raises AttemptFailed."""
    try:
        return request_counts(deployment.workers(), deployment.nodes, deployment.manifest.engine.requests)
    except OSError as error:
        raise _unreachable_worker(deployment, error) from error


def wait_until_drained(deployment: Deployment, print_line: PrintLine, limit_s: float | None = None) -> None:
    """Return once no worker holds a request; after the plan's `stop_s` seconds, print how many are held.

    Without `limit_s` it then returns all the same: these requests end with their workers. With `limit_s`
    another run is to follow, so it keeps waiting, and raises AttemptFailed after `limit_s` seconds.
    """
    started_s, report_after_s = time.monotonic(), deployment.manifest.deadlines.stop_s
    while True:
        deployment.require_alive()
        try:
            in_flight = requests_in_flight(
                deployment.workers(), deployment.nodes, deployment.manifest.engine.in_flight
            )
        except OSError as error:
            raise _unreachable_worker(deployment, error) from error
        if not in_flight:
            return
        waited_s = time.monotonic() - started_s
        if limit_s is not None and waited_s > limit_s:
            raise AttemptFailed(
                f"{in_flight:.0f} requests of a run are still held by workers {waited_s:.0f} s after its "
                f"end; expected none within load.response_timeout_s={limit_s:g}, before the next run begins."
            )
        if waited_s > report_after_s:
            what = "they are stopped with them" if limit_s is None else "the next run waits"
            print_line(f"{in_flight:.0f} requests are still held by workers; {what}")
            if limit_s is None:
                return
            report_after_s = waited_s + REPORT_INTERVAL_S
        time.sleep(POLL_S)


def _request_bodies(settings: ClientSettings, count: int) -> list[bytes]:
    """Return bodies of `count` requests of the run's median length.

    Raises ConfigurationError for lengths that cannot be drawn.
    """
    load = settings.load
    tokens = int(np.median(draw_schedule(settings).input_tokens))
    answer_tokens = np.full(count, OUTPUT_TOKENS, np.int64)
    schedule = Schedule(
        np.zeros(count, np.int64),
        np.full(count, tokens, np.int64),
        answer_tokens,
        answer_tokens,
        answer_tokens,
    )
    other_load = load.model_copy(update={"shuffle_seed": load.shuffle_seed + PROMPT_SEED_OFFSET})
    prompts = Prompts(settings.served_model_name, other_load, schedule, nvext=settings.nvext)
    return [prompts.body(position) for position in range(count)]


async def _round(deployment: Deployment, settings: ClientSettings, bodies: Sequence[bytes]) -> str:
    """Send all `bodies` at once; return the first error, empty where there is none.

    Raises TimeoutError where no answer arrives for `quiet_s`, AttemptFailed where a process ends.
    """
    endpoint = Endpoint(settings, time.monotonic_ns)
    responses = [StreamedResponse() for _ in bodies]
    requests = zip(bodies, responses, strict=True)
    pending = {
        asyncio.create_task(endpoint.request(body, response, lambda: None)) for body, response in requests
    }
    progress_s = time.monotonic()
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=POLL_S)
            for task in done:
                task.result()
            deployment.require_alive()
            progress_s = time.monotonic() if done else progress_s
            if time.monotonic() - progress_s > deployment.manifest.deadlines.quiet_s:
                raise TimeoutError
    finally:
        for task in pending:
            task.cancel()
    return next((response.error for response in responses if response.error), "")


def _describe_counts(workers: Sequence[Process], received: Mapping[str, float]) -> str:
    """Describe the requests that each worker received, and which workers should have received some."""
    idle = [name for name, count in received.items() if not count]
    expected = f" Expected some for {', '.join(idle)}." if idle else ""
    counts = format_counts(workers, received)
    return f" Requests got: {counts}.{expected} See the logs of the frontend and of the workers."


def _unreachable_worker(deployment: Deployment, error: OSError) -> AttemptFailed:
    """Return the error of a worker that does not answer; raise instead that a process has ended."""
    deployment.require_alive()
    return AttemptFailed(f"A worker does not report its counters: {error}. See its log.")


def _increase(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each count has grown since `before`."""
    return {name: value - before[name] for name, value in now.items()}
