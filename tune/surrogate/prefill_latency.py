"""How long the slowest requests of a prefill pool take at each load: simulated once, true for every scale.

A pool whose steps all take s times as long, asked 1/s times the rate, makes every request take s times as
long. So one curve, of p99 against utilisation, serves every rack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.loadgen.early_stopping import late_allowed
from tune.sim.prefill_loop import PrefillRequests, PrefillWorker, prefill
from tune.sim.prefill_loop import PrefillResult as Served
from tune.sim.queues import UNASSIGNED
from tune.spec.load import Load
from tune.surrogate.kv_transfer import CompletedPrefill
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import draw_lengths

UTILISATION = np.array([0.02, 0.06, 0.15, 0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.93, 0.98, 1.05])
"""Work that arrives over what the pool can do; where curves are known. In between, straight in logarithms."""

EASY, EASY_QUERIES = 0.5, 2000
"""Below this utilisation so many requests say enough."""

RANDOM_DRAWS = 2
"""Of which the curve of a random router is the mean: which worker has the most prompts is luck."""


@dataclass(frozen=True, eq=False)
class Workload:
    """The requests of a run of full length: arrivals at one a second, prompt and answer tokens, each (n,).

    `on_time_frac`: the share that LoadGen's early stopping wants on time. `up_to_qps`: the highest rate whose
    run has so many.
    """

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    on_time_frac: float
    up_to_qps: float

    @classmethod
    def by(cls, load: Load) -> tuple[Workload, ...]:
        """Those of one pass over the dataset and of two, where a run has whole ones; else of the load's rate.

        A longer run meets longer bursts: LoadGen's schedule is one and the same.
        """
        if not load.concatenate_permutation:
            return (cls._first(load, load.expected_queries, np.inf),)
        least = load.at(1e-6).expected_queries
        once = cls._first(load, least, least / load.min_duration_s)
        return once, cls._first(load, least + load.dataset.samples, np.inf)

    def first(self, count: int) -> Workload:
        """Only the first `count` of these requests."""
        return replace(
            self, arrival_s=self.arrival_s[:count], prompt=self.prompt[:count], answer=self.answer[:count]
        )

    @classmethod
    def _first(cls, load: Load, count: int, up_to_qps: float) -> Workload:
        cut = load.sample(count)
        prompt, answer = draw_lengths(
            load.dataset, count, False, load.shuffle_seed, stratified=load.is_short_run
        )
        arrival_s = arrivals_ns(cut)[:count] / 1e9 * load.target_qps
        return cls(arrival_s, prompt, answer, 1 - max(late_allowed(count), 0) / count, up_to_qps)


Loads = tuple[CompletedPrefill, ...]
"""A run at each of UTILISATION."""


@dataclass(frozen=True, eq=False)
class PrefillPool:
    """`on_head` (workers,): which of the workers share a node with the front end."""

    worker: PrefillWorker
    on_head: BoolArray


def mean_service_s(worker: PrefillWorker, prompt: IntArray) -> float:
    """Mean seconds of a worker's time that a prompt takes, when its chunks are full."""
    tokens = prompt.astype(float)
    steps = tokens.mean() / worker.max_num_tokens if worker.chunked else 1.0
    pairs = (tokens * tokens / 2).mean()
    return float(worker.token_s * tokens.mean() + worker.pair_s * pairs + worker.step_s * steps)


def latency_curves(
    pool: PrefillPool, runs: Sequence[Workload], routers: Sequence[str], head_scales: Sequence[float]
) -> tuple[FloatArray, list[Loads]]:
    """Seconds from arrival to the end of prefill that LoadGen wants kept: (runs, routers, head_scales,
    UTILISATION); and the first run at each of UTILISATION, with each router and the first scale.

    `head_scales`: how much longer steps take on the front end's node. What router and scale change is
    simulated in the first run alone, and taken to be the same in the others.
    """
    found = [_curves(pool, runs[0], router, head_scales) for router in routers]
    first = np.stack([curve_s for curve_s, _ in found])
    others = [_curves(pool, run, routers[0], head_scales[:1])[0][0] / first[0, 0] for run in runs[1:]]
    return np.stack([first, *(first * other for other in others)]), [loads for _, loads in found]


def _curves(
    pool: PrefillPool, asked: Workload, router: str, head_scales: Sequence[float]
) -> tuple[FloatArray, Loads]:
    """Of one run and router, (head_scales, UTILISATION), and the run itself. Where prompts go to the least
    loaded worker, a slow one is sent fewer: the pool is as one that can do less."""
    draws = range(RANDOM_DRAWS if router == "random" else 1)
    usual = [_served(pool, asked, router, head_scales[0], draw) for draw in draws]
    some = head_scales[:1] if router == "least-loaded" else head_scales
    ln_s = np.mean([np.log(_slowest_s(pool, loads, some, asked.on_time_frac)) for loads in usual], 0)
    if router == "least-loaded":
        done = 1 - pool.on_head.mean() * (1 - 1 / np.array(head_scales))
        done_frac = done / done[0]
        ln_s = np.stack([np.interp(UTILISATION / frac, UTILISATION, ln_s[0]) for frac in done_frac])
    found: FloatArray = np.maximum.accumulate(np.exp(ln_s), axis=-1)
    return found, usual[0]


def _served(pool: PrefillPool, asked: Workload, router: str, head_scale: float, draw: int) -> Loads:
    """Requests at each of UTILISATION."""
    workers = len(pool.on_head)
    rate = workers / mean_service_s(pool.worker, asked.prompt)
    slowdown = np.where(pool.on_head, head_scale, 1.0)
    found = []
    for load in UTILISATION.tolist():
        some = asked.first(EASY_QUERIES) if load < EASY else asked
        arrival_s = some.arrival_s / (load * rate)
        worker = _dealt(router, workers, len(arrival_s), draw)
        found.append(_prefilled(pool.worker, slowdown, arrival_s, some.prompt, worker))
    return tuple(found)


def _slowest_s(
    pool: PrefillPool, loads: Loads, head_scales: Sequence[float], on_time_frac: float
) -> FloatArray:
    """What `_curves` tells, as simulated: (head_scales, UTILISATION). Of prompts that are dealt to workers
    whatever these do, those of the front end's node are served anew for each scale but the first."""
    found = np.empty((len(head_scales), len(loads)))
    for at, usual in enumerate(loads):
        taken_s = usual.done_s - usual.arrival_s
        mine = np.flatnonzero(pool.on_head[usual.worker])
        for number, scale in enumerate(head_scales):
            if number:
                some = usual.arrival_s[mine], usual.prompt[mine], usual.worker[mine]
                slow = _prefilled(pool.worker, np.full(len(pool.on_head), scale), *some)
                taken_s[mine] = slow.done_s - slow.arrival_s
            found[number, at] = np.quantile(taken_s, on_time_frac)
    return found


def _dealt(router: str, workers: int, count: int, draw: int) -> IntArray:
    """The worker of each prompt, (count,); NOBODY where the least loaded is chosen."""
    if router == "least-loaded":
        return np.full(count, UNASSIGNED, np.int64)
    if router == "random":
        return np.random.default_rng([workers, draw]).integers(workers, size=count)
    return np.arange(count) % workers


def _prefilled(
    worker: PrefillWorker, slowdown: FloatArray, arrival_s: FloatArray, prompt: IntArray, dealt: IntArray
) -> CompletedPrefill:
    none = np.zeros(len(dealt))
    found = Served(dealt.copy(), none.copy(), none.copy(), none.copy(), np.zeros(len(slowdown)))
    prefill(worker, slowdown, PrefillRequests(arrival_s, prompt, none), found)
    return CompletedPrefill(arrival_s, prompt, found.worker, found.done_s)
