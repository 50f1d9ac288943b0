"""The boundary of every configuration on every rack, to a few percent and in no time.

Serving is fed forward, so the boundary is about the lower of two bounds: what the prefill pool can do in time
with the links that it sends over, and what the decode pool can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.sim.worker_models import decode_worker, prefill_worker, slowdowns
from tune.spec.cluster import Calibration
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.surrogate import decode_capacity, prefill_capacity
from tune.surrogate.kv_transfer import link_count, transfer_delays
from tune.surrogate.prefill_capacity import PoolPairs, PrefillPools
from tune.surrogate.prefill_latency import UTILISATION, PrefillPool, Workload, latency_curves, mean_service_s
from tune.surrogate.prior import ROUTERS, ParameterPrior, ParameterSamples

_TRIED = 32
"""Racks on which it is looked which figure matters to what."""

CAPACITY_FLOOR_QPS = 0.05
"""What holds no rate is said to hold this one: logarithms want one."""

SOFT_MIN_SHARPNESS = 14
"""Of the transition from one pool's bound to the other's. Our choice, by the simulated rack."""

Factors = Mapping[str, FloatArray]


class Emulator:
    """Boundaries of `specs`, which differ in their engines and split alone, on racks of `space`."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        calibration: Calibration,
        space: ParameterPrior,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Simulates each prefill pool at several loads, with each router; `progress` hears of each pool."""
        self._space, self._calibration = space, calibration
        self._asked = Workload.by(specs[0].load)
        self._prompt = self._asked[0].prompt
        self._ttft_s = specs[0].slo.ttft_p99_s
        self._pool_of, pools = _distinct([_prefill_key(spec, calibration) for spec in specs])
        self._engine_of, engines = _distinct([_decode_key(spec, calibration) for spec in specs])
        self._pair_of, pairs = _distinct(
            [(at, *_ends(spec)) for at, spec in zip(self._pool_of, specs, strict=True)]
        )
        self._pool_of_pair = self._pool_of[pairs]
        self._pool_tp = np.array([specs[at].prefill.tensor_parallel for at in pools])
        self._engine_tp = np.array([specs[at].decode.tensor_parallel for at in engines])
        self._engine_on_head = np.array([any(_on_head(specs[at], calibration, "decode")) for at in engines])
        self._decode_workers = np.array([spec.split.decode_workers for spec in specs])
        self._links = np.array([link_count(spec) for spec in specs])
        kv_bytes = kv_bytes_per_token(specs[0].model, specs[0].prefill) * self._prompt.mean()
        self._link_s = float(kv_bytes) / calibration.kv_transfer_bytes_per_s
        self._engines = decode_capacity.decode_engines(
            [specs[at] for at in engines], calibration, self._asked[0]
        )
        self._know_pools([specs[at] for at in pools], [specs[at] for at in pairs], progress)

    def _know_pools(
        self, specs: Sequence[TrialSpec], pairs: Sequence[TrialSpec], progress: Callable[[], None]
    ) -> None:
        """Curves, what each pool does at most, and how much of that is all-reduce; what links add to each of
        `pairs`. Pools side by side, for compiled loops leave other threads alone."""
        behind = [np.flatnonzero(self._pool_of_pair == pool).tolist() for pool in range(len(specs))]
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            known = []
            for found in threads.map(self._simulated, specs, [[pairs[at] for at in of] for of in behind]):
                known.append(found)
                progress()
        finally:
            threads.shutdown(cancel_futures=True)
        curve_s, waited = zip(*known, strict=True)
        by_pair = np.concatenate(waited)[np.argsort(np.concatenate(behind))]
        self._pairs = PoolPairs(
            self._pool_of_pair, np.array([link_count(one) for one in pairs]), np.log(by_pair)
        )
        own_s = np.array([self._service_s(spec, 1.0) for spec in specs])
        slowed_s = np.array([self._service_s(spec, 0.5) for spec in specs])
        workers = np.array([spec.split.prefill_workers for spec in specs])
        self._pools = PrefillPools(
            utilisation=UTILISATION,
            curve_s=np.array(curve_s),
            saturated_qps=workers / own_s,
            up_to_qps=np.array([asked.up_to_qps for asked in self._asked]),
        )
        self._all_reduce_frac = slowed_s / own_s - 1

    def _simulated(self, spec: TrialSpec, behind: Sequence[TrialSpec]) -> tuple[FloatArray, FloatArray]:
        """Of a prefill pool the curves (runs, variants, loads), a variant is a router and a scale of the
        head's node; what links add with each decode pool `behind` it, (behind, routers, loads, BUSY)."""
        routers = [ROUTERS[int(value)] for value in self._space.values("router")]
        scales = self._space.values("head_node_scale")
        on_head = np.array(_on_head(spec, self._calibration, "prefill"))
        pool = PrefillPool(prefill_worker(spec, self._calibration, np.inf), on_head)
        curve_s, runs = latency_curves(pool, self._asked, routers, scales)
        frac = self._asked[0].on_time_frac
        routed = list(zip(runs, routers, strict=True))
        waited = np.array(
            [[transfer_delays(loads, pair, router, frac) for loads, router in routed] for pair in behind]
        )
        return curve_s.reshape(len(self._asked), -1, curve_s.shape[-1]), waited

    def _service_s(self, spec: TrialSpec, nvlink_frac: float) -> float:
        nvlink = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s * nvlink_frac}
        changed = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=nvlink)})
        return mean_service_s(prefill_worker(changed, self._calibration, np.inf), self._prompt)

    def log_pool_capacity(self, racks: ParameterSamples, which: IntArray) -> FloatArray:
        """ln of what prefill pool with its links and decode pool can do in time, in queries/s, of the
        configurations `which` (m,) on each rack: (2, racks, m)."""
        pairs, pair_at = np.unique(self._pair_of[which], return_inverse=True)
        engines, engine_at = np.unique(self._engine_of[which], return_inverse=True)
        factors = self._space.factors(racks)
        link_s = self._link_s / factors["kv_transfer_bytes_per_s"]
        most = self._links[which] / link_s[:, None]
        prefill = np.minimum(self._prefill_qps(racks, factors, link_s, pairs)[:, pair_at], most)
        decode = self._decode_qps(racks, factors, engines)[:, engine_at] * self._decode_workers[which]
        bounds = np.stack([prefill, decode])
        found: FloatArray = np.log(np.maximum(bounds, CAPACITY_FLOOR_QPS))
        return found

    @cached_property
    def touched(self) -> BoolArray:
        """Which figure of the space changes which bound of which configuration, on some rack at least:
        (figures, 2, configurations)."""
        racks, every = self._space.draw(_TRIED, np.random.default_rng(0)), np.arange(len(self._pair_of))
        bounds = self.log_pool_capacity(racks, every)
        steps = np.eye(len(self._space.names))
        return np.array(
            [
                (
                    self.log_pool_capacity(ParameterSamples(racks.normal + step, racks.choice), every)
                    != bounds
                ).any(1)
                for step in steps
            ]
        )

    def _prefill_qps(
        self, racks: ParameterSamples, factors: Factors, link_s: FloatArray, pairs: IntArray
    ) -> FloatArray:
        """(racks, pairs): where the slowest requests take what the TTFT limit leaves them."""
        pools = self._pairs.pool[pairs]
        slower = 1 + (factors["all_reduce"] - 1)[:, None] * self._all_reduce_frac[pools]
        scale = _scale(factors, "prefill", self._pool_tp[pools]) * slower
        if self._ttft_s is None:
            saturated_qps: FloatArray = self._pools.saturated_qps[pools] / scale
            return saturated_qps
        overhead_s = self._calibration.ttft_overhead_s * factors["ttft_overhead_s"]
        left_s = self._ttft_s - self._calibration.kv_transfer_latency_s - _DECODE_STEP_S - overhead_s
        router, head = (self._space.index(racks, name) for name in ("router", "head_node_scale"))
        variant = router * len(self._space.values("head_node_scale")) + head
        some = PoolPairs(pools, self._pairs.links[pairs], self._pairs.ln_waits[pairs])
        of_racks = prefill_capacity.PrefillParameters(variant, router, left_s, link_s, scale)
        return prefill_capacity.prefill_capacity_qps(self._pools, some, of_racks)

    def _decode_qps(self, racks: ParameterSamples, factors: Factors, engines: IntArray) -> FloatArray:
        """Of one worker, (racks, engines), where the slowest of the pool has the limit."""
        last, head = (
            np.maximum(self._space.value(racks, f"{which}_scale"), 1.0)[:, None]
            for which in ("last_decode_worker", "head_node")
        )
        slowest = np.where(self._engine_on_head[engines], np.maximum(last, head), last)
        of_racks = decode_capacity.DecodeParameters(
            all_reduce=factors["all_reduce"],
            kv_capacity=factors["kv_capacity"],
            scale=_scale(factors, "decode", self._engine_tp[engines]) * slowest,
            reads=self._space.value(racks, "large_batch_weight_reads")[:, None] * slowest,
        )
        return decode_capacity.decode_capacity_qps(self._engines, engines, of_racks)


def _scale(factors: Factors, role: Role, tp: IntArray) -> FloatArray:
    """Of the steps of engines that have these tensor parallelisms (m,), on each rack: (racks, m)."""
    known, at = np.unique(tp, return_inverse=True)
    of_tp = np.stack([factors[f"{role}_scale_tp{one}"] for one in known], 1)
    found: FloatArray = factors[f"{role}_scale"][:, None] * of_tp[:, at]
    return found


_DECODE_STEP_S = 0.055
"""Of the first token's way through decode: a step. Figure: p50 of TPOT of the published run, and a half."""


def log_capacity(log_pool_capacity: FloatArray) -> FloatArray:
    """ln of the boundary that two bounds (2, ...) come to, shape (...)."""
    found: FloatArray = log_pool_capacity.min(0) - log_soft_min_correction(log_pool_capacity)
    return found


def log_soft_min_correction(log_pool_capacity: FloatArray) -> FloatArray:
    """How far the boundary lies below the lower of two bounds (2, ...), in ln, shape (...): up to 5 % where
    they are close, as both then make requests late."""
    found: FloatArray = (
        np.log1p(np.exp(-SOFT_MIN_SHARPNESS * np.abs(log_pool_capacity[0] - log_pool_capacity[1])))
        / SOFT_MIN_SHARPNESS
    )
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
    return worker, spec.prefill.tensor_parallel, _on_head(spec, calibration, "prefill")


def _decode_key(spec: TrialSpec, calibration: Calibration) -> object:
    worker, batch_s = decode_worker(spec, calibration, np.inf)
    on_head = any(_on_head(spec, calibration, "decode"))
    return worker, batch_s.tobytes(), spec.decode.tensor_parallel, on_head


def _on_head(spec: TrialSpec, calibration: Calibration, role: Role) -> tuple[bool, ...]:
    """Which workers of a pool share a node with the front end."""
    slow = calibration.model_copy(update={"head_node_scale": 2.0, "last_decode_worker_scale": 1.0})
    return tuple((slowdowns(spec, slow, role) > 1).tolist())


def _ends(spec: TrialSpec) -> tuple[int, int, int, int]:
    return spec.split.prefill_workers, spec.prefill.gpus, spec.split.decode_workers, spec.decode.gpus
