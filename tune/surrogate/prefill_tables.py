"""Hold the curves of every prefill pool, of which only some are simulated.

A pool that is not simulated has the curve of the most similar one of the first pools, at the scale of its own
steps. The pools in focus are simulated. What was in focus before does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.sim.prefill_pool import PrefillWorker
from tune.spec.trial import TrialSpec
from tune.surrogate.kv_transfer import link_count
from tune.surrogate.prefill_capacity import PoolPairs, PrefillPools
from tune.surrogate.prefill_latency import UTILISATION

SIMULATED_FIRST, MOST_SIMULATED_FIRST = 48, 128
"""Number of pools that are simulated first where there are more than MOST_SIMULATED_FIRST; otherwise all are.
Chosen here by what a study may take to begin."""

_UNLIKE = 5.0
"""Distance between pools that order their chunks in another way, in factors of e of any other setting."""

Simulate = Callable[[TrialSpec, Sequence[TrialSpec]], tuple[FloatArray, FloatArray]]
"""Simulate the pool of a trial and the links to the decode pool of each of several trials.

The results are latency curves, shape (runs, variants, loads), and delays (trials, routers, loads, links).
"""


class PrefillTables:
    """Hold one row for each pair of a prefill pool and the decode pool behind it."""

    def __init__(self, simulate: Simulate, max_qps: FloatArray) -> None:
        """Begin without rows. `max_qps` (runs,) is the rate up to which the benchmark requires each run."""
        self._simulate, self._max_qps = simulate, max_qps
        self._specs: list[TrialSpec] = []
        self._simulated: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._pool = np.zeros(0, int)
        self._traits = np.zeros((0, 0))
        self._own_s = self._saturated_qps = np.zeros(0)
        self._links = np.zeros(0, int)
        self._first = np.zeros(0, int)
        self._source = np.zeros(0, int)
        self._is_simulated = np.zeros(0, bool)

    def add(
        self,
        specs: Sequence[TrialSpec],
        pools: Sequence[int],
        workers: Sequence[PrefillWorker],
        own_s: FloatArray,
    ) -> None:
        """Add a row for each of `specs`, whose pools have the numbers `pools`.

        `workers` and `own_s` are their workers and the mean seconds that one takes for a prompt.
        """
        traits = np.array([_traits(spec, worker) for spec, worker in zip(specs, workers, strict=True)])
        counts = np.array([spec.split.prefill_workers for spec in specs])
        self._specs += specs
        self._pool = np.append(self._pool, np.array(pools, int))
        self._traits = np.concatenate([self._traits.reshape(-1, traits.shape[1]), traits])
        self._own_s = np.append(self._own_s, own_s)
        self._saturated_qps = np.append(self._saturated_qps, counts / own_s)
        self._links = np.append(self._links, [link_count(spec) for spec in specs])
        self._is_simulated = np.append(self._is_simulated, np.zeros(len(specs), bool))
        if len(self._first):
            self._source = np.append(
                self._source, self._nearest(np.arange(len(self._source), len(self._specs)))
            )

    def begin(self, progress: Callable[[int, int], None]) -> None:
        """Simulate all pools, or SIMULATED_FIRST that differ most; the first row is among them.

        `progress` is called with the number of pools so far and of all.
        """
        pools, rows = np.unique(self._pool, return_index=True)
        if len(pools) > MOST_SIMULATED_FIRST:
            pools = self._pool[_spread(self._traits, rows, SIMULATED_FIRST)]
        self._first = np.flatnonzero(np.isin(self._pool, pools))
        self._simulate_rows(self._first, progress)
        self._source = self._nearest(np.arange(len(self._specs)))
        self._latency_s = np.stack([self._simulated[row][0] for row in self._first.tolist()])
        self._log_delays = np.stack([self._simulated[row][1] for row in self._first.tolist()])
        self.focus(np.zeros(0, int))

    def focus(self, rows: IntArray) -> None:
        """Simulate `rows`; until the next call they and the first rows are those that are simulated."""
        self._simulate_rows(rows, lambda done, total: None)
        self._is_simulated[:] = False
        self._is_simulated[self._first] = True
        self._is_simulated[rows] = True

    def is_simulated(self, rows: IntArray) -> BoolArray:
        """Return which of `rows` (m,) are simulated, shape (m,)."""
        return self._is_simulated[rows]

    def select(self, rows: IntArray) -> tuple[PrefillPools, PoolPairs]:
        """Return the curves of `rows` (m,), and the links behind them."""
        source = self._source[rows]
        scale = self._own_s[rows] / self._own_s[self._first[source]]
        latency_s = self._latency_s[source] * scale[:, None, None, None]
        log_delays = self._log_delays[source]
        for place in np.flatnonzero(self._is_simulated[rows]).tolist():
            latency_s[place], log_delays[place] = self._simulated[int(rows[place])]
        pools = PrefillPools(UTILISATION, latency_s, self._saturated_qps[rows], self._max_qps)
        return pools, PoolPairs(np.arange(len(rows)), self._links[rows], log_delays)

    def _nearest(self, rows: IntArray) -> IntArray:
        """Return for each of `rows` (m,) the place of the most similar row among the first, shape (m,)."""
        distance = ((self._traits[rows][:, None] - self._traits[self._first]) ** 2).sum(-1)
        links = np.abs(np.log(self._links[rows][:, None] / self._links[self._first]))
        nearest: IntArray = (distance + 1e-3 * links).argmin(1)
        return nearest

    def _simulate_rows(self, rows: IntArray, progress: Callable[[int, int], None]) -> None:
        """Simulate those of `rows` that never were, one pool at a time and with all its links.

        Pools are simulated in threads, because compiled loops release the interpreter lock.
        """
        missing = [row for row in rows.tolist() if row not in self._simulated]
        by_pool: dict[int, list[int]] = {}
        for row in missing:
            by_pool.setdefault(int(self._pool[row]), []).append(row)
        groups = list(by_pool.values())
        if not groups:
            return
        behind = [[self._specs[row] for row in group] for group in groups]
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            results = threads.map(self._simulate, [specs[0] for specs in behind], behind)
            for done, (group, (latency_s, delays)) in enumerate(zip(groups, results, strict=True), 1):
                for row, delay in zip(group, np.log(delays), strict=True):
                    self._simulated[row] = latency_s, delay
                progress(done, len(groups))
        finally:
            threads.shutdown(cancel_futures=True)


def _traits(spec: TrialSpec, worker: PrefillWorker) -> list[float]:
    """Return what makes latency curves of two pools similar, apart from the scale of their steps."""
    return [
        0.5 * float(np.log(spec.split.prefill_workers)),
        float(np.log(worker.token_budget)),
        0.3 * float(np.log(worker.max_sequences)),
        float(np.log(worker.step_s / worker.token_s)),
        0.3 * float(np.log(worker.pair_s / worker.token_s)),
        *(_UNLIKE * flag for flag in (worker.chunked, worker.equal_progress, worker.static_batch)),
    ]


def _spread(traits: FloatArray, rows: IntArray, count: int) -> IntArray:
    """Return `count` of `rows`, each as far as possible from those before; the first row comes first."""
    chosen = [int(rows.min())]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((traits[rows] - traits[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(rows[distance.argmax()]))
    return np.array(chosen)
