"""Emulate the simulator's capacity of every configuration for any parameters, within a few percent.

Serving is a feed-forward pipeline, so the capacity of a deployment is about the lower of two pool capacities:
that of the prefill pool together with the links behind it, and that of the decode pool. Latency curves and
transfer delays are simulated once; parameter samples only scale them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.core.threads import available_cores, map_ahead
from tune.sim.worker_models import decode_worker, prefill_worker, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.surrogate import decode_capacity, prefill_capacity
from tune.surrogate.kv_transfer import LINK_UTILISATION, link_count, transfer_delays
from tune.surrogate.pool_cache import PoolCache, cache_folder, code_digest, content_key
from tune.surrogate.prefill_capacity import PoolPairs, PrefillPools
from tune.surrogate.prefill_latency import UTILISATION, PrefillPool, Workload, latency_curves, mean_service_s
from tune.surrogate.prior import ROUTERS, ParameterPrior, ParameterSamples

_SENSITIVITY_SAMPLES = 32
"""Number of prior samples used to detect which parameter affects which pool."""

CAPACITY_FLOOR_QPS = 0.05
"""Floor for a capacity of zero, because capacities are used as logarithms."""

SOFT_MIN_SHARPNESS = 14
"""Sharpness of the soft minimum of two log pool capacities. Chosen here to agree with the simulator."""

_DECODE_STEP_S = 0.055
"""Decode contribution to TTFT: one step. It is 10 ms more than the p50 TPOT of NVIDIA's MLPerf Inference v5.1
run (0.045 s)."""

Factors = Mapping[str, FloatArray]
"""By parameter name the factor of each sample, shape (samples,)."""


class Emulator:
    """Predict the pool capacities of configurations that differ only in their engines and split."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        calibration: Calibration,
        prior: ParameterPrior,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Simulate each distinct prefill pool of `specs` at several loads, with each router.

        `progress` is called with the number of pools so far and of all.
        """
        self._prior, self._calibration = prior, calibration
        self._runs = Workload.from_load(specs[0].load)
        self._prompt = self._runs[0].prompt
        self._ttft_s = specs[0].slo.ttft_p99_s
        self._pool_of, pools = _distinct([_prefill_key(spec, calibration) for spec in specs])
        self._engine_of, engines = _distinct([_decode_key(spec, calibration) for spec in specs])
        self._pair_of, pairs = _distinct(
            [(pool, *_pool_sizes(spec)) for pool, spec in zip(self._pool_of, specs, strict=True)]
        )
        self._pool_of_pair = self._pool_of[pairs]
        self._pool_tp = np.array([specs[index].prefill.tensor_parallel for index in pools])
        self._engine_tp = np.array([specs[index].decode.tensor_parallel for index in engines])
        self._engine_on_head = np.array(
            [any(_on_head(specs[index], calibration, "decode")) for index in engines]
        )
        self._decode_workers = np.array([spec.split.decode_workers for spec in specs])
        self._links = np.array([link_count(spec) for spec in specs])
        kv_bytes = kv_bytes_per_token(specs[0].model, specs[0].prefill) * self._prompt.mean()
        self._transfer_s = float(kv_bytes) / calibration.kv_transfer_bytes_per_s
        self._engines = decode_capacity.decode_engines(
            [specs[index] for index in engines], calibration, self._runs[0]
        )
        self._simulate_pools([specs[index] for index in pools], [specs[index] for index in pairs], progress)

    def _simulate_pools(
        self, specs: Sequence[TrialSpec], pairs: Sequence[TrialSpec], progress: Callable[[int, int], None]
    ) -> None:
        """Simulate the prefill pools `specs` and the links of `pairs`; tabulate what scales them.

        Pools are simulated in threads, as compiled loops release the interpreter lock, and kept in files.
        """
        behind = [np.flatnonzero(self._pool_of_pair == pool).tolist() for pool in range(len(specs))]
        pools = zip(specs, [[pairs[index] for index in indices] for indices in behind], strict=True)
        kept = PoolCache(cache_folder())
        simulated = []
        for result in map_ahead(partial(self._read_or_simulate, kept), pools, available_cores()):
            simulated.append(result)
            progress(len(simulated), len(specs))
        kept.prune()
        latency_s, delays = zip(*simulated, strict=True)
        pair_delays = np.concatenate(delays)[np.argsort(np.concatenate(behind))]
        self._pairs = PoolPairs(
            self._pool_of_pair, np.array([link_count(spec) for spec in pairs]), np.log(pair_delays)
        )
        own_s = np.array([self._service_s(spec, 1.0) for spec in specs])
        half_rate_s = np.array([self._service_s(spec, 0.5) for spec in specs])
        workers = np.array([spec.split.prefill_workers for spec in specs])
        self._pools = PrefillPools(
            utilisation=UTILISATION,
            latency_s=np.array(latency_s),
            saturated_qps=workers / own_s,
            max_qps=np.array([run.max_qps for run in self._runs]),
        )
        self._all_reduce_frac = half_rate_s / own_s - 1

    def _read_or_simulate(
        self, kept: PoolCache, pool: tuple[TrialSpec, Sequence[TrialSpec]]
    ) -> tuple[FloatArray, FloatArray]:
        """Return what `_simulate_pool` returns, from `kept` where it is there."""
        spec, behind = pool
        routers, head_scales = (self._prior.hypothesis_values(name) for name in ("router", "head_node_scale"))
        worker = prefill_worker(spec, self._calibration, np.inf)
        on_head = _on_head(spec, self._calibration, "prefill")
        links = [(pair.stack, pair.split, pair.load.shuffle_seed, *_pool_sizes(pair)) for pair in behind]
        key = content_key([self._common_key, routers, head_scales, worker, on_head, spec.split, links])
        loads = len(UTILISATION)
        shapes = [
            (len(self._runs), len(routers) * len(head_scales), loads),
            (len(behind), len(routers), loads, len(LINK_UTILISATION)),
        ]
        entry = kept.read(key, shapes)
        if entry is None:
            entry = list(self._simulate_pool(spec, behind))
            kept.write(key, entry)
        latency_s, delays = entry
        return latency_s, delays

    @cached_property
    def _common_key(self) -> str:
        """Return the key of what all pools share: the code and the requests."""
        runs = [
            part
            for run in self._runs
            for part in (run.arrival_s, run.prompt, run.answer, run.on_time_frac, run.max_qps)
        ]
        return content_key([code_digest(), *runs])

    def _simulate_pool(self, spec: TrialSpec, behind: Sequence[TrialSpec]) -> tuple[FloatArray, FloatArray]:
        """Simulate the prefill pool of `spec`, and the links to each decode pool of `behind`.

        The results are latency curves (runs, variants, loads), where a variant is a router and a slowdown of
        the frontend's node, and transfer delays (behind, routers, loads, link utilisations).
        """
        routers = [ROUTERS[int(value)] for value in self._prior.hypothesis_values("router")]
        head_scales = self._prior.hypothesis_values("head_node_scale")
        on_head = np.array(_on_head(spec, self._calibration, "prefill"))
        pool = PrefillPool(prefill_worker(spec, self._calibration, np.inf), on_head)
        latency_s, loads_by_router = latency_curves(pool, self._runs, routers, head_scales)
        frac = self._runs[0].on_time_frac
        routed = list(zip(loads_by_router, routers, strict=True))
        delays = np.array(
            [[transfer_delays(loads, pair, router, frac) for loads, router in routed] for pair in behind]
        )
        return latency_s.reshape(len(self._runs), -1, latency_s.shape[-1]), delays

    def _service_s(self, spec: TrialSpec, nvlink_frac: float) -> float:
        """Return the mean prefill seconds of a prompt where NVLink has `nvlink_frac` of its rate."""
        nvlink = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s * nvlink_frac}
        changed = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=nvlink)})
        return mean_service_s(prefill_worker(changed, self._calibration, np.inf), self._prompt)

    def log_pool_capacity(self, samples: ParameterSamples, indices: IntArray) -> FloatArray:
        """Return the log capacity of both pools, prefill with its links first, queries/s.

        `indices` (m,) are configurations. The shape is (2, samples, m).
        """
        pairs, pair_column = np.unique(self._pair_of[indices], return_inverse=True)
        engines, engine_column = np.unique(self._engine_of[indices], return_inverse=True)
        factors = self._prior.factors(samples)
        transfer_s = self._transfer_s / factors["kv_transfer_bytes_per_s"]
        link_qps = self._links[indices] / transfer_s[:, None]
        prefill = np.minimum(self._prefill_qps(samples, factors, transfer_s, pairs)[:, pair_column], link_qps)
        decode = self._decode_qps(samples, factors, engines)[:, engine_column] * self._decode_workers[indices]
        capacity = np.stack([prefill, decode])
        log_capacity: FloatArray = np.log(np.maximum(capacity, CAPACITY_FLOOR_QPS))
        return log_capacity

    @cached_property
    def sensitivity_mask(self) -> BoolArray:
        """Return which parameter changes which pool of which configuration on any prior sample.

        The shape is (parameters, 2, configurations).
        """
        samples = self._prior.draw(_SENSITIVITY_SAMPLES, np.random.default_rng(0))
        indices = np.arange(len(self._pair_of))
        capacity = self.log_pool_capacity(samples, indices)
        steps = np.eye(len(self._prior.names))
        return np.array(
            [
                (
                    self.log_pool_capacity(ParameterSamples(samples.normal + step, samples.choice), indices)
                    != capacity
                ).any(1)
                for step in steps
            ]
        )

    def _prefill_qps(
        self, samples: ParameterSamples, factors: Factors, transfer_s: FloatArray, pairs: IntArray
    ) -> FloatArray:
        """Return the capacity of prefill pools with their links, queries/s, shape (samples, pairs)."""
        pools = self._pairs.pool[pairs]
        all_reduce_scale = 1 + (factors["all_reduce"] - 1)[:, None] * self._all_reduce_frac[pools]
        scale = _step_scale(factors, "prefill", self._pool_tp[pools]) * all_reduce_scale
        if self._ttft_s is None:
            saturated_qps: FloatArray = self._pools.saturated_qps[pools] / scale
            return saturated_qps
        overhead_s = self._calibration.ttft_overhead_s * factors["ttft_overhead_s"]
        budget_s = self._ttft_s - self._calibration.kv_transfer_latency_s - _DECODE_STEP_S - overhead_s
        router, head = (
            self._prior.hypothesis_choice(samples, name) for name in ("router", "head_node_scale")
        )
        variant = router * len(self._prior.hypothesis_values("head_node_scale")) + head
        pool_pairs = PoolPairs(pools, self._pairs.links[pairs], self._pairs.log_delays[pairs])
        parameters = prefill_capacity.PrefillParameters(variant, router, budget_s, transfer_s, scale)
        return prefill_capacity.prefill_capacity_qps(self._pools, pool_pairs, parameters)

    def _decode_qps(self, samples: ParameterSamples, factors: Factors, engines: IntArray) -> FloatArray:
        """Return the capacity per worker where the slowest worker of a pool limits it, (samples, engines)."""
        last, head = (
            np.maximum(self._prior.hypothesis_value(samples, f"{name}_scale"), 1.0)[:, None]
            for name in ("last_decode_worker", "head_node")
        )
        slowest = np.where(self._engine_on_head[engines], np.maximum(last, head), last)
        reads = self._prior.hypothesis_value(samples, "large_batch_weight_reads")
        parameters = decode_capacity.DecodeParameters(
            all_reduce_factor=factors["all_reduce"],
            kv_capacity_factor=factors["kv_capacity"],
            step_scale=_step_scale(factors, "decode", self._engine_tp[engines]) * slowest,
            weight_reads=reads[:, None] * slowest,
        )
        return decode_capacity.decode_capacity_qps(self._engines, engines, parameters)


def _step_scale(factors: Factors, role: Role, tp: IntArray) -> FloatArray:
    """Return the scale of the steps of engines with tensor parallelisms `tp` (m,), shape (samples, m)."""
    distinct, column = np.unique(tp, return_inverse=True)
    tp_factor = np.stack([factors[f"{role}_scale_tp{size}"] for size in distinct], 1)
    scale: FloatArray = factors[f"{role}_scale"][:, None] * tp_factor[:, column]
    return scale


def log_capacity(log_pool_capacity: FloatArray) -> FloatArray:
    """Return the log capacity of deployments from that of their pools (2, ...), shape (...)."""
    result: FloatArray = log_pool_capacity.min(0) - log_soft_min_correction(log_pool_capacity)
    return result


def log_soft_min_correction(log_pool_capacity: FloatArray) -> FloatArray:
    """Return how far the log capacity lies below the lower of two log pool capacities (2, ...), shape (...).

    It is up to 5 % where they are close, because both pools then make requests late.
    """
    correction: FloatArray = (
        np.log1p(np.exp(-SOFT_MIN_SHARPNESS * np.abs(log_pool_capacity[0] - log_pool_capacity[1])))
        / SOFT_MIN_SHARPNESS
    )
    return correction


def _distinct(keys: Sequence[object]) -> tuple[IntArray, list[int]]:
    """Return the number of each key among the distinct ones, and where each distinct key first occurs."""
    first: dict[object, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    numbers = {key: number for number, key in enumerate(first)}
    return np.array([numbers[key] for key in keys]), list(first.values())


def _prefill_key(spec: TrialSpec, calibration: Calibration) -> object:
    """Return a key that is equal for prefill pools that are simulated alike."""
    worker = prefill_worker(spec, calibration, np.inf)
    return worker, spec.prefill.tensor_parallel, _on_head(spec, calibration, "prefill")


def _decode_key(spec: TrialSpec, calibration: Calibration) -> object:
    """Return a key that is equal for decode workers that are simulated alike."""
    worker, batch_s = decode_worker(spec, calibration, np.inf)
    on_head = any(_on_head(spec, calibration, "decode"))
    return worker, batch_s.tobytes(), spec.decode.tensor_parallel, on_head


def _on_head(spec: TrialSpec, calibration: Calibration, role: Role) -> tuple[bool, ...]:
    """Return for each worker of a pool whether it shares a node with the frontend."""
    slow = calibration.model_copy(update={"head_node_scale": 2.0, "last_decode_worker_scale": 1.0})
    return tuple((worker_slowdowns(spec, slow, role) > 1).tolist())


def _pool_sizes(spec: TrialSpec) -> tuple[int, int, int, int]:
    """Return workers and GPUs per worker, prefill first; they determine the links."""
    return spec.split.prefill_workers, spec.prefill.gpus, spec.split.decode_workers, spec.decode.gpus
