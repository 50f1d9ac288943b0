"""The boundary of every configuration on every rack, to a few percent and in no time.

Serving is fed forward, so the boundary is about the lowest of three bounds: what the prefill pool can do in
time, what the decode pool can do in time, and what the links between them carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tune.belief.decode_bound import DecodeEngine
from tune.belief.prefill_curve import UTILISATION, Asked, curves, service_s
from tune.belief.racks import ROUTERS, Racks, RackSpace
from tune.results.requests import FloatArray, IntArray
from tune.sim.workers import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.memory import kv_bytes_per_token
from tune.spec.trial import TrialSpec

LOWEST_QPS = 0.05
"""What holds no rate is said to hold this one: logarithms want one."""

LINK_FRAC = 0.9
"""Share of a link's rate that it can carry without a queue that costs the TTFT limit. Our choice."""

SHARPNESS = 14
"""Of the transition from one pool's bound to the other's. Our choice, by the simulated rack."""

LONG_PROMPT = 1.2
"""Length of a prompt whose first token is late, over the mean. Our choice."""


Factors = Mapping[str, FloatArray]


class Emulator:
    """Boundaries of `specs`, which differ in their engines and split alone, on racks of `space`."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        calibration: Calibration,
        space: RackSpace,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Simulates each prefill pool once a router and load; `progress` hears of each pool."""
        self._space, self._calibration = space, calibration
        self._asked = Asked.by(specs[0].load)
        self._prompt = self._asked[0].prompt
        self._ttft_s = specs[0].slo.ttft_p99_s
        self._pool_of, pools = _distinct([_prefill_key(spec, calibration) for spec in specs])
        self._engine_of, engines = _distinct([_decode_key(spec, calibration) for spec in specs])
        self._pool_tp = np.array([specs[at].prefill.tensor_parallel_size for at in pools])
        self._engine_tp = np.array([specs[at].decode.tensor_parallel_size for at in engines])
        self._decode_workers = np.array([spec.split.decode_workers for spec in specs])
        self._links = np.array([_links(spec) for spec in specs])
        kv_bytes = kv_bytes_per_token(specs[0].model, specs[0].prefill) * self._prompt.mean()
        self._link_s = float(kv_bytes) / calibration.kv_transfer_bytes_per_s
        self._engines = [DecodeEngine.of(specs[at], calibration, self._asked[0]) for at in engines]
        self._know_pools([specs[at] for at in pools], progress)

    def _know_pools(self, specs: Sequence[TrialSpec], progress: Callable[[], None]) -> None:
        """Curves (pools, runs, routers, loads); what each pool does at most, how much of it is all-reduce."""
        routers = [ROUTERS[int(value)] for value in self._space.values("router")]
        known, saturated, all_reduce = [], [], []
        for spec in specs:
            worker = prefill_worker(spec, self._calibration, np.inf)
            slower = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s / 2}
            slowed = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=slower)})
            own_s, slowed_s = (
                service_s(one, self._prompt)
                for one in (worker, prefill_worker(slowed, self._calibration, np.inf))
            )
            workers = spec.split.prefill_workers
            saturated.append(workers / own_s)
            all_reduce.append(slowed_s / own_s - 1)
            known.append(curves(worker, workers, self._asked, routers))
            progress()
        self._curves, self._saturated_qps = np.array(known), np.array(saturated)
        self._all_reduce_frac = np.array(all_reduce)

    def ln_boundary(self, racks: Racks, which: IntArray) -> FloatArray:
        """ln of the boundary in queries/s of the configurations `which` (m,) on each rack: (racks, m)."""
        pools, pool_at = np.unique(self._pool_of[which], return_inverse=True)
        engines, engine_at = np.unique(self._engine_of[which], return_inverse=True)
        factors = self._space.factors(racks)
        link_s = self._link_s / factors["kv_transfer_bytes_per_s"]
        prefill = self._prefill_qps(racks, factors, link_s, pools)
        decode = np.stack([self._decode_qps(racks, factors, at) for at in engines], 1)
        bound = _lower(prefill[:, pool_at], decode[:, engine_at] * self._decode_workers[which])
        links = LINK_FRAC * self._links[which] / link_s[:, None]
        found: FloatArray = np.log(np.maximum(np.minimum(bound, links), LOWEST_QPS))
        return found

    def _prefill_qps(self, racks: Racks, factors: Factors, link_s: FloatArray, pools: IntArray) -> FloatArray:
        """(racks, pools): where the slowest requests take what the TTFT limit leaves for prefill."""
        tp = self._pool_tp[pools]
        of_tp = np.stack([factors[f"prefill_scale_tp{one}"] for one in tp], 1)
        slower = 1 + (factors["all_reduce"] - 1)[:, None] * self._all_reduce_frac[pools]
        scale = factors["prefill_scale"][:, None] * of_tp * slower
        if self._ttft_s is None:
            saturated: FloatArray = self._saturated_qps[pools] / scale
            return saturated
        overhead_s = self._calibration.ttft_overhead_s * factors["ttft_overhead_s"]
        step_s = self._calibration.kv_transfer_latency_s + _DECODE_STEP_S
        left_s = (self._ttft_s - overhead_s - step_s)[:, None] - LONG_PROMPT * link_s[:, None] / tp
        ln_left = np.log(np.maximum(left_s, 1e-3) / scale)
        router = self._space.index(racks, "router")
        found = np.full(ln_left.shape, np.inf)
        for run, asked in reversed(list(enumerate(self._asked))):
            known = self._curves[pools, run][:, router].transpose(1, 0, 2)
            qps = _utilisation(known, ln_left) * self._saturated_qps[pools] / scale
            found = np.where(qps <= asked.up_to_qps, qps, np.maximum(found, asked.up_to_qps))
        return found

    def _decode_qps(self, racks: Racks, factors: Factors, engine: int) -> FloatArray:
        """Of one worker (racks,), where the slowest of the pool has the limit."""
        scale = factors["decode_scale"] * factors[f"decode_scale_tp{self._engine_tp[engine]}"]
        slowest = np.maximum(self._space.value(racks, "last_decode_worker_scale"), 1.0)
        reads = self._space.value(racks, "large_batch_weight_reads") * slowest
        return self._engines[engine].highest_qps(
            scale * slowest, factors["all_reduce"], reads, factors["kv_capacity"]
        )


_DECODE_STEP_S = 0.055
"""Of the first token's way through decode: a step. Figure: p50 of TPOT of the published run, and a half."""


_LN_UTILISATION = np.log(UTILISATION)


def _utilisation(known: FloatArray, ln_left: FloatArray) -> FloatArray:
    """Where curves `known` (racks, pools, loads) reach `ln_left` (racks, pools); 0 where they begin above."""
    above = np.minimum((known <= ln_left[:, :, None]).sum(2), len(UTILISATION) - 1)
    below = np.maximum(above - 1, 0)
    low, high = (np.take_along_axis(known, at[:, :, None], 2)[:, :, 0] for at in (below, above))
    share = np.clip((ln_left - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    ln_found = _LN_UTILISATION[below] + share * (_LN_UTILISATION[above] - _LN_UTILISATION[below])
    return np.where(ln_left >= known[:, :, 0], np.exp(ln_found), 0.0)


def _lower(a: FloatArray, b: FloatArray) -> FloatArray:
    """The lower one, and up to 5 % less where they are close: both pools then make requests late."""
    low, high = np.minimum(a, b), np.maximum(np.maximum(a, b), 1e-9)
    found: FloatArray = low * (1 + (low / high) ** SHARPNESS) ** (-1 / SHARPNESS)
    return found


def _distinct(keys: Sequence[object]) -> tuple[IntArray, list[int]]:
    """Which of the distinct keys each is, and where each distinct one stands first."""
    first: dict[object, int] = {}
    for at, key in enumerate(keys):
        first.setdefault(key, at)
    order = {key: i for i, key in enumerate(first)}
    return np.array([order[key] for key in keys]), list(first.values())


def _prefill_key(spec: TrialSpec, calibration: Calibration) -> object:
    worker = prefill_worker(spec, calibration, np.inf)
    return worker, spec.split.prefill_workers, spec.prefill.tensor_parallel_size


def _decode_key(spec: TrialSpec, calibration: Calibration) -> object:
    worker, batch_s = decode_worker(spec, calibration, np.inf)
    return worker, batch_s.tobytes(), spec.decode.tensor_parallel_size


def _links(spec: TrialSpec) -> int:
    """GPUs, each with a link, of the pool that has fewer."""
    split = spec.split
    return min(split.prefill_workers * spec.prefill.gpus, split.decode_workers * spec.decode.gpus)
