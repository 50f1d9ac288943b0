"""Send requests until every frontend, worker and pair of a prefill and a decode worker has served some."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count, islice
from math import prod

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
from tune.orchestrator.worker_pairs import (
    REFUSED_ROUTING,
    RoutedResponse,
    WorkerPair,
    next_round,
    planned_rounds,
    route,
)

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
    """Send rounds of requests until all pairs of workers answered, all work and a round had no error.

    Pairs are chosen where the frontend accepts that, and asked again where a request failed; elsewhere 2 x
    prefill workers x decode workers requests are left to its router, as many as TensorRT-LLM's own benchmark
    of disaggregated serving sends for its connections. With aggregated workers each is asked by itself, or 2
    requests for each are left to the router. Requests go to the frontends in turn, each round
    beginning one further, until every frontend has answered: each has a router and connections of its own. In
    NVIDIA's v6.1 runs the rate was 5 % lower without a request through every frontend (template
    dynamo_disagg_loadgen.yaml). Prompts have the median length of the run's prompts. Generated prompts share
    no prefix with the run's prompts. Raises AttemptFailed, with the counts of all workers, where a process
    ends or a worker is left out.
    """
    workers, frontends = deployment.workers(), len(settings.endpoint_urls)
    pools = [len(pool) for pool in deployment.pools()]
    passes = min(pools) if len(pools) > 1 else 1
    pair_rounds = planned_rounds(registered_instances(deployment), pools)
    least = max(len(pair_rounds) or 2 * passes, frontends)
    bodies = _request_bodies(settings, (3 * passes + frontends + MAX_ROUNDS + 1) * max(pools))
    before = worker_request_counts(deployment)
    reached: set[WorkerPair] = set()
    silent = set(range(frontends))
    unanswered = {pair for pairs in pair_rounds for pair in pairs}
    print_line(f"warming up {len(workers)} workers")
    for number in count():
        if number == least + MAX_ROUNDS:
            break
        pairs = next_round(pair_rounds, number, unanswered)
        sent = _Round(number, tuple(islice(bodies, max(pools))), pairs)
        responses = _answers(deployment, settings, sent, before)
        error = next((response.error for response in responses if response.error), "")
        if pairs and all(response.error.startswith(REFUSED_ROUTING) for response in responses):
            pair_rounds, least = [], number + 1 + max(2 * passes, frontends)
            unanswered.clear()
            continue
        unanswered -= {pair for pair, answer in zip(pairs or (), responses, strict=False) if not answer.error}
        reached |= {response.served_by for response in responses if response.served_by}
        silent -= {sent.frontend(i, frontends) for i, answer in enumerate(responses) if not answer.error}
        received = increase(before, worker_request_counts(deployment))
        done = not error and number + 1 >= least
        if done and not unanswered and not silent and all(received.values()):
            print_line(_summary(number + 1, pools, reached, len(received), frontends))
            return
        if error:
            time.sleep(ERROR_PAUSE_S)
    raise AttemptFailed(
        f"{least + MAX_ROUNDS} rounds of warm-up did not reach every worker and frontend without an error."
        + (f" Pairs of workers that never answered: {len(unanswered)}." if unanswered else "")
        + (f" The last error: {error}." if error else "")
        + _describe_counts(workers, received)
    )


@dataclass(frozen=True)
class _Round:
    """Hold the requests that are sent at once, each for one of `pairs`; None leaves them to the router."""

    number: int
    bodies: tuple[bytes, ...]
    pairs: Sequence[WorkerPair] | None

    def frontend(self, position: int, frontends: int) -> int:
        """Return the index of the frontend that gets the request at `position`."""
        return (self.number + position) % frontends

    def routed_bodies(self) -> Sequence[bytes]:
        """Return the requests with the fields that send each to its pair."""
        if self.pairs is None:
            return self.bodies
        return [route(body, pair) for body, pair in zip(self.bodies, self.pairs, strict=True)]


def _summary(
    rounds: int, pools: Sequence[int], reached: Set[WorkerPair], counted: int, frontends: int
) -> str:
    """Return what the warm-up reached, and what of it nobody counted; `counted` workers have a counter."""
    wanted = prod(pools)
    what = "pairs of prefill and decode worker" if len(pools) > 1 else "aggregated workers"
    pairs = (
        f"{len(reached)} of {wanted} {what}"
        if reached
        else f"which of {wanted} {what} they reached is not counted"
    )
    workers = sum(pools)
    if counted == workers:
        worked = "every worker has worked"
    elif counted:
        worked = f"every worker that can be counted has worked, {counted} of {workers}"
    else:
        worked = "requests of single workers are not counted"
    answered = f"; all {frontends} frontends have answered" if frontends > 1 else ""
    return f"{worked}, after {rounds} rounds of warm-up; {pairs}{answered}"


def _answers(
    deployment: Deployment,
    settings: ClientSettings,
    sent: _Round,
    before: Mapping[str, float],
) -> list[RoutedResponse]:
    """Send a round; return the answers. Raises AttemptFailed where none arrives."""
    try:
        return asyncio.run(_send(deployment, settings, sent))
    except TimeoutError:
        limit = f"{deployment.manifest.deadlines.quiet_s:g} s (cluster.deadlines.quiet_s)"
        received = increase(before, worker_request_counts(deployment))
        raise AttemptFailed(
            f"No answer came in the warm-up for {limit}.{_describe_counts(deployment.workers(), received)}",
            evidence=deployment.waiting_evidence(),
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


async def _send(deployment: Deployment, settings: ClientSettings, sent: _Round) -> list[RoutedResponse]:
    """Send the requests of a round at once; return their answers.

    Raises TimeoutError where no answer arrives for `quiet_s`, AttemptFailed where a process ends.
    """
    endpoints = [Endpoint(settings, url, time.monotonic_ns) for url in settings.endpoint_urls]
    responses = [RoutedResponse() for _ in sent.bodies]
    pending = {
        asyncio.create_task(
            endpoints[sent.frontend(position, len(endpoints))].request(body, response, lambda: None)
        )
        for position, (body, response) in enumerate(zip(sent.routed_bodies(), responses, strict=True))
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
