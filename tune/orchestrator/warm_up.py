"""Requests before the run, until every worker has worked; and whether all of them did in the run."""

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
MOST_ROUNDS = 20
"""Requests for each worker of the larger pool: under random routing to 14 workers, one that serves stays
without any in e^-20 of all runs. Formula: (1 - 1/n)^(20 n)."""

AFTER_ERROR_S = 0.5
"""Between rounds where requests fail: a frontend that has just learned of its workers has ten seconds."""

OTHER_PROMPTS = 1_000_003
"""Added to the length seed: whoever compares orders of lengths takes the next few seeds."""

SAY_EVERY_S = 30.0
"""Between two lines about requests that workers hold while the next run waits."""

FEWEST_PER_WORKER = 20
"""Requests for each worker of a pool from which on one without any was left out, not unlucky; as above."""


def warm_up(deployment: Deployment, settings: ClientSettings, say: PrintLine) -> None:
    """Send rounds of requests until each worker's own counter moved and a round had no error.

    Prompts have the median length of the run's and, where they are made to length, share no beginning with
    them. Raises Broken where a process ends or some worker is left out, with who got what.
    """
    workers = deployment.workers()
    size = max(len(deployment.workers(role)) for role in ("prefill", "decode"))
    bodies = _questions(settings, MOST_ROUNDS * size)
    before = _taken(workers, deployment)
    say(f"warming up {len(workers)} workers")
    for number in range(MOST_ROUNDS):
        try:
            error = asyncio.run(_round(deployment, settings, bodies[number * size : (number + 1) * size]))
        except TimeoutError:
            limit = f"{deployment.launch.deadlines.quiet_s:g} s (cluster.deadlines.quiet_s)"
            got = _since(before, _taken(workers, deployment))
            raise AttemptFailed(
                f"No answer came in the warm-up for {limit}.{_who_got(workers, got)}"
            ) from None
        got = _since(before, _taken(workers, deployment))
        if not error and all(got.values()):
            say(f"every worker has worked, after {number + 1} rounds of warm-up")
            return
        if error:
            time.sleep(AFTER_ERROR_S)
    raise AttemptFailed(
        f"{MOST_ROUNDS} rounds of warm-up did not reach every worker without an error."
        + (f" The last error: {error}." if error else "")
        + _who_got(workers, got)
    )


def require_all_workers_used(deployment: Deployment, before: Mapping[str, float]) -> None:
    """Raises Broken where a worker got nothing since `before` while its pool had plenty of requests."""
    got = _since(before, _taken(deployment.workers(), deployment))
    for role in ("prefill", "decode"):
        pool = [worker for worker in deployment.workers(role) if worker.name in got]
        counts = [got[worker.name] for worker in pool]
        if pool and not min(counts) and sum(counts) >= FEWEST_PER_WORKER * len(pool):
            raise AttemptFailed(
                f"The requests of the run did not spread over the {role} workers: {format_counts(pool, got)}. "
                "Expected some for each; the figures would be those of another split. See the frontend's log."
            )


def worker_request_counts(deployment: Deployment) -> dict[str, float]:
    """By name, the requests that each worker with a counter has taken on. Raises Broken."""
    return _taken(deployment.workers(), deployment)


def wait_until_drained(deployment: Deployment, say: PrintLine, limit_s: float | None = None) -> None:
    """Return once no worker holds a request; `stop_s` later it says how many are held.

    It then returns too, without `limit_s`: they end with their workers. With it, it waits on, for another run
    is to follow; raises Broken `limit_s` after it began.
    """
    began_s, say_after_s = time.monotonic(), deployment.launch.deadlines.stop_s
    while True:
        deployment.require_alive()
        try:
            held = requests_in_flight(
                deployment.workers(), deployment.nodes, deployment.launch.engine.in_flight
            )
        except OSError as error:
            raise _silent(deployment, error) from error
        if not held:
            return
        waited_s = time.monotonic() - began_s
        if limit_s is not None and waited_s > limit_s:
            raise AttemptFailed(
                f"{held:.0f} requests of a run are still held by workers {waited_s:.0f} s after its end; "
                f"expected none within load.response_timeout_s={limit_s:g}, before the next run begins."
            )
        if waited_s > say_after_s:
            what = "they are stopped with them" if limit_s is None else "the next run waits"
            say(f"{held:.0f} requests are still held by workers; {what}")
            if limit_s is None:
                return
            say_after_s = waited_s + SAY_EVERY_S
        time.sleep(POLL_S)


def _questions(settings: ClientSettings, count: int) -> list[bytes]:
    """Bodies of `count` requests of the run's median length. Raises ConfigurationError as draw_schedule does."""
    load = settings.load
    tokens = int(np.median(draw_schedule(settings).input_tokens))
    few = np.full(count, OUTPUT_TOKENS, np.int64)
    schedule = Schedule(np.zeros(count, np.int64), np.full(count, tokens, np.int64), few, few, few)
    other = load.model_copy(update={"shuffle_seed": load.shuffle_seed + OTHER_PROMPTS})
    prompts = Prompts(settings.served_model_name, other, schedule, nvext=settings.nvext)
    return [prompts.body(position) for position in range(count)]


async def _round(deployment: Deployment, settings: ClientSettings, bodies: Sequence[bytes]) -> str:
    """Ask all `bodies` at once; what went wrong, empty where nothing did. Raises TimeoutError, Broken."""
    endpoint = Endpoint(settings, time.monotonic_ns)
    answers = [StreamedResponse() for _ in bodies]
    asked = zip(bodies, answers, strict=True)
    waiting = {asyncio.create_task(endpoint.ask(body, answer, lambda: None)) for body, answer in asked}
    moved_s = time.monotonic()
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=POLL_S)
            for task in done:
                task.result()
            deployment.require_alive()
            moved_s = time.monotonic() if done else moved_s
            if time.monotonic() - moved_s > deployment.launch.deadlines.quiet_s:
                raise TimeoutError
    finally:
        for task in waiting:
            task.cancel()
    return next((answer.error for answer in answers if answer.error), "")


def _who_got(workers: Sequence[Process], got: Mapping[str, float]) -> str:
    idle = [name for name, count in got.items() if not count]
    expected = f" Expected some for {', '.join(idle)}." if idle else ""
    return f" Requests got: {format_counts(workers, got)}.{expected} See the logs of the frontend and of the workers."


def _taken(workers: Sequence[Process], deployment: Deployment) -> dict[str, float]:
    try:
        return request_counts(workers, deployment.nodes, deployment.launch.engine.requests)
    except OSError as error:
        raise _silent(deployment, error) from error


def _silent(deployment: Deployment, error: OSError) -> AttemptFailed:
    """What to say of a worker that does not answer; raised instead is what else may have happened to it."""
    deployment.require_lent()
    deployment.require_alive()
    return AttemptFailed(f"A worker does not tell its counters: {error}. See its log.")


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in now.items()}
