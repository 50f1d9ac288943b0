"""Simulate the latency of the slowest requests of a prefill pool at each load, once for all step times.

If all steps of a pool take s times as long and the rate is 1/s times as high, every request takes s times as
long. One curve of latency against utilisation therefore serves every scale of the step times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import NO_PREFILL_TABLE, PrefillRequests, PrefillWorker, empty_prefill_result
from tune.sim.queues import UNASSIGNED
from tune.spec.load import Load
from tune.surrogate.kv_transfer import CompletedPrefill
from tune.surrogate.pool_limits import FirstTokenLimit
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import request_lengths

UTILISATION = np.array([0.02, 0.06, 0.15, 0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.93, 0.98, 1.05])
"""Simulated utilisations: arriving work over the work that a pool can do. In between, curves are interpolated
linearly in logarithms."""

LOW_UTILISATION, LOW_UTILISATION_QUERIES = 0.5, 2000
"""Below this utilisation, only this number of requests is simulated."""

RANDOM_ROUTER_DRAWS = 2
"""The curve of a random router is the geometric mean of this many simulations, because the worker with the
most prompts is a matter of chance."""


@dataclass(frozen=True, eq=False)
class Workload:
    """Hold the requests of a run of full length, arrays of shape (n,).

    `arrival_s` are arrivals at one request a second, and `max_qps` is the highest rate whose run has this
    length.
    """

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    max_qps: float

    @classmethod
    def from_load(cls, load: Load) -> tuple[Workload, ...]:
        """Return runs of one and two passes over the dataset; one run where a run need not be whole passes.

        A longer run meets longer bursts, because LoadGen's schedule never changes.
        """
        if not load.concatenate_permutation:
            return (cls._first_queries(load, load.expected_queries, np.inf),)
        least = load.at(1e-6).expected_queries
        one_pass = cls._first_queries(load, least, least / load.min_duration_s)
        return one_pass, cls._first_queries(load, least + load.dataset.samples, np.inf)

    def first(self, count: int) -> Workload:
        """Return the first `count` of these requests."""
        return replace(
            self, arrival_s=self.arrival_s[:count], prompt=self.prompt[:count], answer=self.answer[:count]
        )

    @classmethod
    def _first_queries(cls, load: Load, count: int, max_qps: float) -> Workload:
        """Return the first `count` requests of `load`."""
        short = load.sample(count)
        prompt, answer = request_lengths(load.model_copy(update={"concatenate_permutation": False}), count)
        arrival_s = arrivals_ns(short)[:count] / 1e9 * load.offered_qps
        return cls(arrival_s, prompt, answer, max_qps)


Loads = tuple[CompletedPrefill, ...]
"""One simulated run for each of UTILISATION."""


@dataclass(frozen=True, eq=False)
class PrefillPool:
    """Describe a prefill pool; `on_head` (workers,) marks the workers on the frontend's node."""

    worker: PrefillWorker
    on_head: BoolArray


def mean_service_s(worker: PrefillWorker, prompt: IntArray) -> float:
    """Return the mean seconds of a worker's time per prompt of `prompt` (n,) tokens, with full chunks."""
    tokens = prompt.astype(float)
    steps = tokens.mean() / worker.token_budget if worker.chunked else 1.0
    pairs = (tokens * tokens / 2).mean()
    return float(worker.token_s * tokens.mean() + worker.pair_s * pairs + worker.step_s * steps)


def latency_curves(
    pool: PrefillPool,
    runs: Sequence[Workload],
    routers: Sequence[str],
    head_scales: Sequence[float],
    limits: Sequence[FirstTokenLimit],
) -> tuple[FloatArray, list[Loads]]:
    """Simulate the latency that limits are on, from arrival to the end of prefill.

    Parameters
    ----------
    pool
        The prefill pool.
    runs
        The requests. Routers and slowdowns are simulated in the first run; their ratios are assumed equal in
        the others.
    routers
        Routers of the requests.
    head_scales
        Slowdowns of the steps on the frontend's node.
    limits
        The limits, for each of which there is a curve.

    Returns
    -------
    tuple[FloatArray, list[Loads]]
        The latency in seconds, shape (runs, limits, routers, head_scales, UTILISATION), and for each router
        the simulated requests of the first run at the first slowdown.
    """
    curves = [_curves(pool, runs[0], router, head_scales, limits) for router in routers]
    first = np.stack([curve_s for curve_s, _ in curves], 1)
    others = [
        _curves(pool, run, routers[0], head_scales[:1], limits)[0] / first[:, 0, :1] for run in runs[1:]
    ]
    latency_s = np.stack([first, *(first * other[:, None] for other in others)])
    return latency_s, [loads for _, loads in curves]


def _curves(
    pool: PrefillPool,
    workload: Workload,
    router: str,
    head_scales: Sequence[float],
    limits: Sequence[FirstTokenLimit],
) -> tuple[FloatArray, Loads]:
    """Return the curves of one run and router, (limits, head_scales, UTILISATION), and the requests.

    A least-loaded router sends fewer prompts to a slow worker: the pool behaves like one of less capacity.
    """
    draws = range(RANDOM_ROUTER_DRAWS if router == "random" else 1)
    simulated = [_simulate_loads(pool, workload, router, head_scales[0], draw) for draw in draws]
    scales = head_scales[:1] if router == "least-loaded" else head_scales
    log_s = np.mean(
        [np.log(_limited_s(pool, loads, scales, limits, workload.answer)) for loads in simulated], 0
    )
    if router == "least-loaded":
        capacity = 1 - pool.on_head.mean() * (1 - 1 / np.array(head_scales))
        capacity_frac = capacity / capacity[0]
        log_s = np.stack(
            [
                [np.interp(UTILISATION / frac, UTILISATION, curve) for frac in capacity_frac]
                for curve in log_s[:, 0]
            ]
        )
    curve_s: FloatArray = np.maximum.accumulate(np.exp(log_s), axis=-1)
    return curve_s, simulated[0]


def _simulate_loads(
    pool: PrefillPool, workload: Workload, router: str, head_scale: float, draw: int
) -> Loads:
    """Simulate the requests of `workload` at each of UTILISATION."""
    workers = len(pool.on_head)
    rate = workers / mean_service_s(pool.worker, workload.prompt)
    slowdown = np.where(pool.on_head, head_scale, 1.0)
    loads = []
    for utilisation in UTILISATION.tolist():
        requests = workload.first(LOW_UTILISATION_QUERIES) if utilisation < LOW_UTILISATION else workload
        arrival_s = requests.arrival_s / (utilisation * rate)
        worker = _route(router, workers, len(arrival_s), draw)
        loads.append(_simulate_prefill(pool.worker, slowdown, arrival_s, requests.prompt, worker))
    return tuple(loads)


def _limited_s(
    pool: PrefillPool,
    loads: Loads,
    head_scales: Sequence[float],
    limits: Sequence[FirstTokenLimit],
    answer: IntArray,
) -> FloatArray:
    """Return the latency that each limit is on, shape (limits, head_scales, UTILISATION).

    `loads` were simulated with the first of `head_scales`; `answer` (n,) are the tokens of their answers.
    With state-independent routing, only the workers on the frontend's node are simulated again for each
    further slowdown.
    """
    limited_s = np.empty((len(limits), len(head_scales), len(loads)))
    for column, load in enumerate(loads):
        latency_s = load.done_s - load.arrival_s
        on_head = np.flatnonzero(pool.on_head[load.worker])
        for row, scale in enumerate(head_scales):
            if row:
                requests = load.arrival_s[on_head], load.prompt[on_head], load.worker[on_head]
                slow = _simulate_prefill(pool.worker, np.full(len(pool.on_head), scale), *requests)
                latency_s[on_head] = slow.done_s - slow.arrival_s
            limited_s[:, row, column] = [limit.statistic_s(latency_s, answer) for limit in limits]
    return limited_s


def _route(router: str, workers: int, count: int, draw: int) -> IntArray:
    """Return the worker of each prompt, shape (count,); UNASSIGNED for a least-loaded router."""
    if router == "least-loaded":
        return np.full(count, UNASSIGNED, np.int64)
    if router == "random":
        return np.random.default_rng([workers, draw]).integers(workers, size=count)
    return np.arange(count) % workers


def _simulate_prefill(
    worker: PrefillWorker, slowdown: FloatArray, arrival_s: FloatArray, prompt: IntArray, routed: IntArray
) -> CompletedPrefill:
    """Simulate prefill without KV transfers; `slowdown` (workers,) scales the steps of each worker."""
    result = empty_prefill_result(routed.copy(), len(slowdown))
    prompts = PrefillRequests(arrival_s, prompt, np.zeros(len(routed)))
    prefill(worker, slowdown, NO_PREFILL_TABLE, prompts, result)
    return CompletedPrefill(arrival_s, prompt, result.worker, result.done_s)
