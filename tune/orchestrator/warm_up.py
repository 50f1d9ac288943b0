"""Send requests until every worker, and every pair of a prefill and a decode worker, has served some."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import count, islice

import numpy as np

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint
from tune.client.prompts import Prompts
from tune.client.schedule import Schedule, draw_schedule
from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.managed_process import POLL_S, PrintLine, format_counts
from tune.orchestrator.readiness import registered_instances
from tune.orchestrator.worker_load import increase, worker_request_counts
from tune.orchestrator.worker_pairs import REFUSED_ROUTING, RoutedResponse, WorkerPair, planned_rounds, route

OUTPUT_TOKENS = 8
"""Tokens of each answer in the warm-up."""
MAX_ROUNDS = 20
"""Rounds of the warm-up beyond those that ask every pair, each with a request for every worker of the larger
pool.

Under random routing to 14 workers, a worker that serves stays without a request in e^-20 of all runs.
Formula: (1 - 1/n)^(20 n).
"""

ERROR_PAUSE_S = 0.5
"""Seconds between rounds where requests fail: a frontend that has just found its workers gets ten seconds."""

PROMPT_SEED_OFFSET = 1_000_003
"""Added to the shuffle seed of the run: comparisons of shuffles use the next few seeds."""


def warm_up(deployment: Deployment, settings: ClientSettings, print_line: PrintLine) -> None:
    """Send rounds of requests until each pair of workers was asked, each has worked and a round had no error.

    Pairs are chosen where the frontend accepts that; elsewhere 2 x prefill workers x decode workers requests
    are left to its router, as many as TensorRT-LLM's own benchmark of disaggregated serving sends for its
    connections. Prompts have the median length of the run's prompts. Generated prompts share no prefix with
    the run's prompts. Raises AttemptFailed, with the counts of all workers, where a process ends or a worker
    is left out.
    """
    workers = deployment.workers()
    pools = [len(deployment.workers(role)) for role in ("prefill", "decode")]
    pair_rounds = planned_rounds(registered_instances(deployment), pools)
    least = len(pair_rounds) or 2 * min(pools)
    bodies = _request_bodies(settings, (3 * min(pools) + MAX_ROUNDS + 1) * max(pools))
    before = worker_request_counts(deployment)
    reached: set[WorkerPair] = set()
    print_line(f"warming up {len(workers)} workers")
    for number in count():
        if number == least + MAX_ROUNDS:
            break
        pairs = pair_rounds[number % len(pair_rounds)] if pair_rounds else None
        responses = _answers(deployment, settings, list(islice(bodies, max(pools))), pairs, before)
        error = next((response.error for response in responses if response.error), "")
        if pairs and all(response.error.startswith(REFUSED_ROUTING) for response in responses):
            pair_rounds, least = [], number + 1 + 2 * min(pools)
            continue
        reached |= {response.served_by for response in responses if response.served_by}
        received = increase(before, worker_request_counts(deployment))
        if not error and number + 1 >= least and all(received.values()):
            print_line(_summary(number + 1, pools, reached, received))
            return
        if error:
            time.sleep(ERROR_PAUSE_S)
    raise AttemptFailed(
        f"{least + MAX_ROUNDS} rounds of warm-up did not reach every worker without an error."
        + (f" The last error: {error}." if error else "")
        + _describe_counts(workers, received)
    )


def _summary(
    rounds: int, pools: Sequence[int], reached: Set[WorkerPair], received: Mapping[str, float]
) -> str:
    """Return what the warm-up reached, and what of it nobody counted."""
    wanted = pools[0] * pools[1]
    pairs = (
        f"{len(reached)} of {wanted} pairs of prefill and decode worker"
        if reached
        else f"which of {wanted} pairs of prefill and decode worker they reached is not counted"
    )
    worked = "every worker has worked" if received else "requests of single workers are not counted"
    return f"{worked}, after {rounds} rounds of warm-up; {pairs}"


def _answers(
    deployment: Deployment,
    settings: ClientSettings,
    bodies: Sequence[bytes],
    pairs: Sequence[WorkerPair] | None,
    before: Mapping[str, float],
) -> list[RoutedResponse]:
    """Send `bodies` at once, each to its pair; return the answers.

    Raises AttemptFailed where none arrives.
    """
    if pairs:
        bodies = [route(body, pair) for body, pair in zip(bodies, pairs, strict=True)]
    try:
        return asyncio.run(_round(deployment, settings, bodies))
    except TimeoutError:
        limit = f"{deployment.manifest.deadlines.quiet_s:g} s (cluster.deadlines.quiet_s)"
        received = increase(before, worker_request_counts(deployment))
        raise AttemptFailed(
            f"No answer came in the warm-up for {limit}.{_describe_counts(deployment.workers(), received)}",
            deployment.waiting_cause(),
        ) from None


def _request_bodies(settings: ClientSettings, requests: int) -> Iterator[bytes]:
    """Return the bodies of `requests` requests of the run's median length.

    Raises ConfigurationError for lengths that cannot be drawn.
    """
    load = settings.load
    tokens = int(np.median(draw_schedule(settings).input_tokens))
    answer_tokens = np.full(requests, OUTPUT_TOKENS, np.int64)
    schedule = Schedule(
        np.zeros(requests, np.int64),
        np.full(requests, tokens, np.int64),
        answer_tokens,
        answer_tokens,
        answer_tokens,
    )
    other_load = load.model_copy(update={"shuffle_seed": load.shuffle_seed + PROMPT_SEED_OFFSET})
    prompts = Prompts(settings.served_model_name, other_load, schedule, nvext=settings.nvext)
    return (prompts.body(position) for position in range(requests))


async def _round(
    deployment: Deployment, settings: ClientSettings, bodies: Sequence[bytes]
) -> list[RoutedResponse]:
    """Send all `bodies` at once; return their answers.

    Raises TimeoutError where no answer arrives for `quiet_s`, AttemptFailed where a process ends.
    """
    endpoint = Endpoint(settings, time.monotonic_ns)
    responses = [RoutedResponse() for _ in bodies]
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
    return responses


def _describe_counts(workers: Sequence[Process], received: Mapping[str, float]) -> str:
    """Describe the requests that each worker received, and which workers should have received some."""
    idle = [name for name, count in received.items() if not count]
    expected = f" Expected some for {', '.join(idle)}." if idle else ""
    counts = format_counts(workers, received)
    return f" Requests got: {counts}.{expected} See the logs of the frontend and of the workers."
