"""Emulate the simulator's capacity of every configuration for any parameters, within a few percent.

Serving is a feed-forward pipeline, so the capacity of a deployment is about the lower of two pool capacities:
that of the prefill pool together with the links behind it, and that of the decode pool. Latency curves and
transfer delays are simulated once; parameter samples only scale them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.sim.worker_models import decode_worker, prefill_worker, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.surrogate import decode_capacity, prefill_capacity
from tune.surrogate.kv_transfer import link_count, transfer_delays
from tune.surrogate.pool_cache import KeptPools
from tune.surrogate.pool_limits import PoolLimits
from tune.surrogate.prefill_latency import PrefillPool, Workload, latency_curves, mean_service_s
from tune.surrogate.prefill_tables import PrefillTables
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
        """Simulate the first prefill pools of `specs` at several loads, with each router.

        `progress` is called with the number of pools so far and of all.
        """
        self._prior, self._calibration = prior, calibration
        self._runs = Workload.from_load(specs[0].load)
        self._prompt = self._runs[0].prompt
        self._limits = PoolLimits.from_slo(specs[0].slo, self._runs[0].answer)
        kv_bytes = kv_bytes_per_token(specs[0].model, specs[0].prefill) * self._prompt.mean()
        self._transfer_s = float(kv_bytes) / calibration.kv_transfer_bytes_per_s
        self._numbers_of: dict[str, dict[object, int]] = {}
        self._pair_of = self._engine_of = self._decode_workers = self._links = np.zeros(0, int)
        self._pool_tp = self._engine_tp = np.zeros(0, int)
        self._engine_on_head = np.zeros(0, bool)
        self._all_reduce_frac = self._frontend_qps = np.zeros(0)
        self._engine_tables: list[decode_capacity.DecodeEngines] = []
        routers, head_scales = (prior.hypothesis_values(name) for name in ("router", "head_node_scale"))
        simulate = KeptPools(
            self._simulate_pool,
            lambda spec: _prefill_key(spec, calibration),
            self._runs,
            self._limits.curves,
            routers=routers,
            head_scales=head_scales,
        )
        self._tables = PrefillTables(simulate, np.array([run.max_qps for run in self._runs]))
        self.add(specs)
        self._tables.begin(progress)

    def add(self, specs: Sequence[TrialSpec]) -> None:
        """Append configurations; none of their prefill pools is simulated before it is in focus."""
        new_pairs = self._add_pairs(specs)
        if new_pairs:
            self._add_tables([specs[index] for index in new_pairs])
        engine_of, new_engines = self._numbers(
            "engine", [_decode_key(spec, self._calibration) for spec in specs]
        )
        self._engine_of = np.append(self._engine_of, engine_of)
        if new_engines:
            self._add_engines([specs[index] for index in new_engines])
        self._decode_workers = np.append(self._decode_workers, [spec.split.decode_workers for spec in specs])
        self._links = np.append(self._links, [link_count(spec) for spec in specs])
        self._frontend_qps = np.append(self._frontend_qps, [self._streamed_qps(spec) for spec in specs])

    def _streamed_qps(self, spec: TrialSpec) -> float:
        """Return the rate at which the frontends are late by half a first-token limit for the last query."""
        messages = self._runs[0].answer.mean() / spec.decode.tokens_per_message
        late_s = min((limit.limit_s for limit in self._limits.first_token), default=0.0) / 2
        overload = 1 + late_s / spec.load.min_duration_s
        message_s = self._calibration.frontend_message_s / spec.split.frontends
        return float(overload / max(messages * message_s, 1e-9))

    def focus(self, indices: IntArray) -> None:
        """Simulate the prefill pools of the configurations `indices` with their links.

        Those of others, except the first, are approximated by similar ones until they are in focus.
        """
        self._tables.focus(np.unique(self._pair_of[indices]))

    def is_simulated(self, indices: IntArray) -> BoolArray:
        """Return for which of the configurations `indices` (m,) prefill is simulated, shape (m,)."""
        return self._tables.is_simulated(self._pair_of[indices])

    def _add_pairs(self, specs: Sequence[TrialSpec]) -> list[int]:
        """Append the pair of prefill and decode pool of each of `specs`; return which have a new one."""
        pools, _ = self._numbers("pool", [_prefill_key(spec, self._calibration) for spec in specs])
        keys = [(pool, *_pool_sizes(spec)) for pool, spec in zip(pools.tolist(), specs, strict=True)]
        pair_of, new = self._numbers("pair", keys)
        self._pair_of = np.append(self._pair_of, pair_of)
        return new

    def _add_tables(self, specs: Sequence[TrialSpec]) -> None:
        """Add the rows of new pairs, one for each of `specs`."""
        pools, _ = self._numbers("pool", [_prefill_key(spec, self._calibration) for spec in specs])
        own_s = np.array([self._service_s(spec, 1.0) for spec in specs])
        half_rate_s = np.array([self._service_s(spec, 0.5) for spec in specs])
        self._all_reduce_frac = np.append(self._all_reduce_frac, half_rate_s / own_s - 1)
        self._pool_tp = np.append(self._pool_tp, [spec.prefill.tensor_parallel for spec in specs])
        workers = [prefill_worker(spec, self._calibration, np.inf) for spec in specs]
        self._tables.add(specs, pools.tolist(), workers, own_s)

    def _add_engines(self, specs: Sequence[TrialSpec]) -> None:
        """Tabulate new decode engines, one for each of `specs`."""
        self._engine_tables.append(decode_capacity.decode_engines(specs, self._calibration, self._runs[0]))
        self._engines = decode_capacity.joined(self._engine_tables)
        self._engine_tp = np.append(self._engine_tp, [spec.decode.tensor_parallel for spec in specs])
        on_head = [any(_on_head(spec, self._calibration, "decode")) for spec in specs]
        self._engine_on_head = np.append(self._engine_on_head, on_head)

    def _numbers(self, kind: str, keys: Sequence[object]) -> tuple[IntArray, list[int]]:
        """Return the number of each key of a kind, and where each new one first occurs."""
        known, numbers, new = self._numbers_of.setdefault(kind, {}), [], []
        for index, key in enumerate(keys):
            if key not in known:
                known[key] = len(known)
                new.append(index)
            numbers.append(known[key])
        return np.array(numbers, int), new

    def _simulate_pool(self, spec: TrialSpec, behind: Sequence[TrialSpec]) -> tuple[FloatArray, FloatArray]:
        """Simulate the prefill pool of `spec`, and the links to each decode pool of `behind`.

        The results are latency curves (runs, variants, loads), where a variant is a limit on first tokens, a
        router and a slowdown of the frontend's node, and transfer delays (behind, routers, loads, link
        utilisations), those of the first limit.
        """
        routers = [ROUTERS[int(value)] for value in self._prior.hypothesis_values("router")]
        head_scales = self._prior.hypothesis_values("head_node_scale")
        on_head = np.array(_on_head(spec, self._calibration, "prefill"))
        pool = PrefillPool(prefill_worker(spec, self._calibration, np.inf), on_head)
        limits = self._limits.curves
        latency_s, loads_by_router = latency_curves(pool, self._runs, routers, head_scales, limits)
        frac = limits[0].on_time_frac(len(self._runs[0].prompt))
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

        What the frontend can stream limits decode. Pools that share a limit divide it so that the deployment
        does the most. The shape is (2, samples, m), for the configurations `indices` (m,).
        """
        if not len(indices):
            return np.zeros((2, len(samples), 0))
        best, *others = (
            self._log_pool_capacity(samples, indices, *choice) for choice in self._limits.choices()
        )
        for other in others:
            best = np.where(log_capacity(other) > log_capacity(best), other, best)
        return best

    def _log_pool_capacity(
        self, samples: ParameterSamples, indices: IntArray, step_s: float, first_token_s: Sequence[float]
    ) -> FloatArray:
        """Return the log capacity of both pools under limits of their own, shape (2, samples, m).

        Decode steps may take `step_s`, and first tokens `first_token_s`, one for each limit on them.
        """
        pairs, pair_column = np.unique(self._pair_of[indices], return_inverse=True)
        engines, engine_column = np.unique(self._engine_of[indices], return_inverse=True)
        factors = self._prior.factors(samples)
        transfer_s = self._transfer_s / factors["kv_transfer_bytes_per_s"]
        link_qps = self._links[indices] / transfer_s[:, None]
        prefill = self._prefill_qps(samples, factors, transfer_s, pairs, first_token_s)[:, pair_column]
        prefill = np.minimum(prefill, link_qps)
        decode = self._decode_qps(samples, factors, engines, step_s)[:, engine_column]
        decode *= self._decode_workers[indices]
        frontend_qps = self._frontend_qps[indices] / factors["frontend_message_s"][:, None]
        capacity = np.stack([prefill, np.minimum(decode, frontend_qps)])
        log_capacity: FloatArray = np.log(np.maximum(capacity, CAPACITY_FLOOR_QPS))
        return log_capacity

    def engine_limited(
        self, samples: ParameterSamples, log_pool_capacity: FloatArray, indices: IntArray
    ) -> BoolArray:
        """Return where decode workers, not the frontend, limit the decode pool, shape (samples, m).

        `log_pool_capacity` is that of `samples` at the configurations `indices` (m,).
        """
        frontend_message = self._prior.factors(samples)["frontend_message_s"]
        log_frontend_qps = np.log(self._frontend_qps[indices] / frontend_message[:, None])
        limited: BoolArray = log_pool_capacity[1] < log_frontend_qps - 1e-9
        return limited

    def sensitivity_mask(self, indices: IntArray) -> BoolArray:
        """Return which parameter changes which pool of the configurations `indices` (m,) on any prior sample.

        The shape is (parameters, 2, m).
        """
        samples = self._prior.draw(_SENSITIVITY_SAMPLES, np.random.default_rng(0))
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
        self,
        samples: ParameterSamples,
        factors: Factors,
        transfer_s: FloatArray,
        pairs: IntArray,
        first_token_s: Sequence[float],
    ) -> FloatArray:
        """Return the capacity of prefill pools with their links, queries/s, shape (samples, pairs)."""
        pools, links = self._tables.select(pairs)
        all_reduce_scale = 1 + (factors["all_reduce"] - 1)[:, None] * self._all_reduce_frac[pairs]
        scale = _step_scale(factors, "prefill", self._pool_tp[pairs]) * all_reduce_scale
        if not first_token_s:
            saturated_qps: FloatArray = pools.saturated_qps / scale
            return saturated_qps
        overhead_s = self._calibration.ttft_overhead_s * factors["ttft_overhead_s"]
        router, head = (
            self._prior.hypothesis_choice(samples, name) for name in ("router", "head_node_scale")
        )
        routers, heads = (len(self._prior.hypothesis_values(name)) for name in ("router", "head_node_scale"))
        capacities = []
        for number, limit_s in enumerate(first_token_s):
            variant = (number * routers + router) * heads + head
            budget_s = limit_s - self._calibration.kv_transfer_latency_s - _DECODE_STEP_S - overhead_s
            parameters = prefill_capacity.PrefillParameters(variant, router, budget_s, transfer_s, scale)
            capacities.append(prefill_capacity.prefill_capacity_qps(pools, links, parameters))
        capacity_qps: FloatArray = np.min(capacities, axis=0)
        return capacity_qps

    def _decode_qps(
        self, samples: ParameterSamples, factors: Factors, engines: IntArray, step_limit_s: float
    ) -> FloatArray:
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
            step_limit_s=step_limit_s,
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


def _prefill_key(spec: TrialSpec, calibration: Calibration) -> object:
    """Return a key that is equal for prefill pools that are simulated alike."""
    worker = prefill_worker(spec, calibration, np.inf)
    return worker, spec.prefill.tensor_parallel, _on_head(spec, calibration, "prefill")


def _decode_key(spec: TrialSpec, calibration: Calibration) -> object:
    """Return a key that is equal for decode workers that are simulated alike."""
    worker, steps = decode_worker(spec, calibration, np.inf)
    on_head = any(_on_head(spec, calibration, "decode"))
    return worker, steps.batch_s.tobytes(), steps.token_s.tobytes(), spec.decode.tensor_parallel, on_head


def _on_head(spec: TrialSpec, calibration: Calibration, role: Role) -> tuple[bool, ...]:
    """Return for each worker of a pool whether it shares a node with the frontend."""
    slow = calibration.model_copy(update={"head_node_scale": 2.0, "last_decode_worker_scale": 1.0})
    return tuple((worker_slowdowns(spec, slow, role) > 1).tolist())


def _pool_sizes(spec: TrialSpec) -> tuple[int, int, int, int]:
    """Return workers and GPUs per worker, prefill first; they determine the links."""
    return spec.split.prefill_workers, spec.prefill.gpus, spec.split.decode_workers, spec.decode.gpus
