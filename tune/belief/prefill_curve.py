"""How long the slowest requests of a prefill pool take at each load: simulated once, true for every scale.

A pool whose steps all take s times as long, asked 1/s times the rate, makes every request take s times as
long. So one curve, of p99 against utilisation, serves every rack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tune.probe.arrivals import arrivals_ns
from tune.probe.lengths import draw_lengths
from tune.results.early_stopping import late_allowed
from tune.results.requests import FloatArray, IntArray
from tune.sim.prefill_loop import Prefilled, PrefillWorker, Prompts, prefill
from tune.sim.queues import NOBODY
from tune.spec.load import Load

UTILISATION = np.array([0.02, 0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.93, 0.98, 1.05])
"""Work that arrives over what the pool can do; where curves are known. In between, straight in logarithms."""

SIMULATED_WORKERS = 4
"""Of a pool whose workers are dealt requests without regard to how busy they are, so many stand for all."""

OTHER_ROUTER_QUERIES = 2000
"""Of which the curves of routers other than the first are simulated, as far as they differ from its own."""


@dataclass(frozen=True, eq=False)
class Asked:
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
    def by(cls, load: Load) -> tuple[Asked, ...]:
        """Those of one pass over the dataset and of two, where a run has whole ones; else of the load's rate.

        A longer run meets longer bursts: LoadGen's schedule is one and the same.
        """
        if not load.concatenate_permutation:
            return (cls._first(load, load.expected_queries, np.inf),)
        least = load.at(1e-6).expected_queries
        once = cls._first(load, least, least / load.min_duration_s)
        return once, cls._first(load, least + load.dataset.samples, np.inf)

    def first(self, count: int) -> Asked:
        """Only the first `count` of these requests."""
        return replace(
            self, arrival_s=self.arrival_s[:count], prompt=self.prompt[:count], answer=self.answer[:count]
        )

    @classmethod
    def _first(cls, load: Load, count: int, up_to_qps: float) -> Asked:
        cut = load.first(count)
        prompt, answer = draw_lengths(load.dataset, count, False, load.length_seed)
        arrival_s = arrivals_ns(cut)[:count] / 1e9 * load.target_qps
        return cls(arrival_s, prompt, answer, 1 - max(late_allowed(count), 0) / count, up_to_qps)


def service_s(worker: PrefillWorker, prompt: IntArray) -> float:
    """Mean seconds of a worker's time that a prompt takes, when its chunks are full."""
    tokens = prompt.astype(float)
    steps = tokens.mean() / worker.max_num_tokens if worker.chunked else 1.0
    pairs = (tokens * tokens / 2).mean()
    return float(worker.token_s * tokens.mean() + worker.pair_s * pairs + worker.step_s * steps)


def curves(worker: PrefillWorker, workers: int, runs: Sequence[Asked], routers: Sequence[str]) -> FloatArray:
    """ln of the seconds from arrival to first token that LoadGen wants kept: (runs, routers, UTILISATION)."""
    own = np.stack([_curve(worker, workers, asked, routers[0]) for asked in runs])
    if len(routers) == 1:
        return own[:, None]
    few = runs[0].first(OTHER_ROUTER_QUERIES)
    short = [_curve(worker, workers, few, router) for router in routers]
    return own[:, None] + np.stack([one - short[0] for one in short])


def _curve(worker: PrefillWorker, workers: int, asked: Asked, router: str) -> FloatArray:
    rate = workers / service_s(worker, asked.prompt)
    times = [_slowest_s(worker, workers, asked, router, load * rate) for load in UTILISATION]
    return np.log(np.maximum.accumulate(times))


def _slowest_s(worker: PrefillWorker, workers: int, asked: Asked, router: str, qps: float) -> float:
    count = len(asked.prompt)
    if router == "least-loaded":
        simulated, dealt, mine = workers, np.full(count, NOBODY, np.int64), np.arange(count)
    else:
        simulated = min(workers, SIMULATED_WORKERS)
        dealt = np.arange(count) % workers
        if router == "random":
            dealt = np.random.default_rng(workers).integers(workers, size=count)
        mine = np.flatnonzero(dealt < simulated)
    arrival_s, prompt = asked.arrival_s[mine] / qps, asked.prompt[mine]
    none = np.zeros(len(mine))
    served = Prefilled(dealt[mine], none.copy(), none.copy(), none.copy(), np.zeros(simulated))
    prefill(worker, np.ones(simulated), Prompts(arrival_s, prompt, none), served)
    return float(np.quantile(served.done_s - arrival_s, asked.on_time_frac))
