"""Test that a forecast recovers hidden parameters and predicts the rates that hold."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from support.composed import composed

from tune.analysis.slo import late_requests, slo_holds
from tune.capacity.search import REPEAT_RESIDUAL_FRAC, short_run_queries
from tune.capacity.simulator_fit import SLOW_WORKER_SCALE
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.loadgen.early_stopping import late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

SHORT = ("load.dataset.samples=2000", "load.min_duration_s=60.0", "load.min_queries=2000")
SETTINGS = composed(*SHORT)
SPEC = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration is not None
CALIBRATION: Calibration = SETTINGS.cluster.calibration


def run(hardware: Calibration, qps: float, queries: int | None = None, spec: TrialSpec = SPEC) -> RequestLog:
    load = spec.load.model_copy(update={"target_qps": qps})
    load = load if queries is None else load.sample(queries)
    return simulate_serving(spec.model_copy(update={"load": load}), hardware)


def holds(hardware: Calibration, qps: float, spec: TrialSpec = SPEC) -> bool:
    log = run(hardware, qps)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def highest_qps(hardware: Calibration) -> float:
    low, high = 8.0, 24.0
    while high / low > 1.003:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(hardware, middle) else (low, middle)
    return low


SLOWER_PREFILL, FASTER_DECODE = CALIBRATION.prefill_scale * 1.15, CALIBRATION.decode_scale * 0.9


@pytest.mark.parametrize(
    "hidden",
    [
        {"prefill_scale": SLOWER_PREFILL, "decode_scale": FASTER_DECODE},
        {"prefill_scale": SLOWER_PREFILL, "last_decode_worker_scale": SLOW_WORKER_SCALE},
    ],
    ids=["two scales", "a slow worker"],
)
def test_one_short_probe_recovers_the_hidden_parameters(hidden: dict[str, float]) -> None:
    hardware = CALIBRATION.model_copy(update=hidden)
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(15.0, run(hardware, 15.0, 900), full=False)
    for name, value in hidden.items():
        assert forecast.fitted[name] == pytest.approx(value, rel=0.03), name
    assert forecast.full_run_qps() == pytest.approx(highest_qps(hardware), rel=0.03)


def test_other_hypotheses_are_fitted_only_where_the_calibration_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fit of one hypothesis takes at least a simulation at its start and one for each of three slopes."""
    simulated = Mock(side_effect=simulate_serving)
    monkeypatch.setattr("tune.capacity.simulator_forecast.simulate_serving", simulated)
    SimulatorForecast(SPEC, CALIBRATION).learn(15.0, run(CALIBRATION, 15.0, 900), full=False)
    assert simulated.call_count == 4
    slow = run(CALIBRATION.model_copy(update={"last_decode_worker_scale": SLOW_WORKER_SCALE}), 15.0, 900)
    SimulatorForecast(SPEC, CALIBRATION).learn(15.0, slow, full=False)
    assert simulated.call_count > 4 + 4 * 4


@pytest.mark.slow
def test_the_shuffle_of_a_short_probe_barely_changes_the_capacity() -> None:
    hardware = CALIBRATION.model_copy(update={"prefill_scale": SLOWER_PREFILL, "decode_scale": FASTER_DECODE})
    queries = short_run_queries(SPEC.load.expected_queries)

    def capacity_qps(shuffle_seed: int) -> float:
        load = SPEC.load.model_copy(update={"shuffle_seed": shuffle_seed})
        spec = SPEC.model_copy(update={"load": load})
        forecast = SimulatorForecast(spec, CALIBRATION)
        forecast.learn(15.0, run(hardware, 15.0, queries, spec), full=False)
        return forecast.capacity_qps()

    capacities = [capacity_qps(shuffle_seed) for shuffle_seed in range(3)]
    assert max(capacities) < 1.01 * min(capacities)


@pytest.mark.slow
def test_a_full_run_corrects_what_no_hypothesis_explains() -> None:
    hardware = CALIBRATION.model_copy(update={"kv_transfer_bytes_per_s": 4e9})
    forecast, true_qps = SimulatorForecast(SPEC, CALIBRATION), highest_qps(hardware)
    forecast.learn(15.0, run(hardware, 15.0, 900), full=False)
    planned_qps = forecast.full_run_qps()
    forecast.learn(planned_qps, run(hardware, planned_qps), full=True)
    assert abs(forecast.full_run_qps() / true_qps - 1) < abs(planned_qps / true_qps - 1) / 2


def stalled(log: RequestLog, since_s: float, lasts_s: float) -> RequestLog:
    """Return `log` with a stall: requests that arrive meanwhile wait until it ends."""
    arrived_s = log.scheduled_ns / 1e9
    late = (arrived_s > since_s) & (arrived_s < since_s + lasts_s)
    wait_ns = np.where(late, (since_s + lasts_s - arrived_s) * 1e9, 0).astype(np.int64)
    return replace(log, first_token_ns=log.first_token_ns + wait_ns, done_ns=log.done_ns + wait_ns)


@pytest.mark.slow
def test_only_a_stalled_run_has_a_large_rate_residual() -> None:
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    assert forecast.log_rate_residual() == 0.0
    forecast.learn(15.0, run(CALIBRATION, 15.0, 900), full=False)
    planned_qps = forecast.full_run_qps()
    forecast.learn(planned_qps, run(CALIBRATION, planned_qps), full=True)
    assert abs(forecast.log_rate_residual()) < REPEAT_RESIDUAL_FRAC / 2
    forecast.learn(planned_qps, stalled(run(CALIBRATION, planned_qps), 60.0, 8.0), full=True)
    assert forecast.log_rate_residual() < -REPEAT_RESIDUAL_FRAC


@pytest.mark.slow
def test_without_probes_it_forecasts_the_calibration() -> None:
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    assert holds(CALIBRATION, forecast.full_run_qps())
    assert forecast.fitted["prefill_scale"] == CALIBRATION.prefill_scale
    assert forecast.capacity_qps() == pytest.approx(forecast.full_run_qps(), rel=0.07)


@pytest.mark.slow
def test_curve_gives_what_was_simulated_since_the_last_fit_and_crosses_the_limit_at_the_capacity() -> None:
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    capacity_qps = forecast.capacity_qps()
    curve = forecast.curve()
    assert [point.target_qps for point in curve] == sorted(point.target_qps for point in curve)
    tightest = [max(shares[1] for shares in point.used.values()) for point in curve]
    assert min(tightest) < 1 < max(tightest)
    near = [point for point in curve if abs(point.target_qps / capacity_qps - 1) < 0.01]
    assert any(point.shuffles > 1 for point in near)
    for point in curve:
        assert set(point.used) == {limit.name for limit, _ in SPEC.slo.limits}
        assert all(low <= middle <= high for low, middle, high in point.used.values())
    forecast.learn(16.0, run(CALIBRATION, 16.0), full=True)
    assert forecast.curve() != curve


def test_without_a_feasible_rate_the_forecast_is_zero() -> None:
    slo = SPEC.slo.model_copy(update={"ttft_p99_s": 0.1})
    forecast = SimulatorForecast(SPEC.model_copy(update={"slo": slo}), CALIBRATION)
    assert (forecast.full_run_qps(), forecast.capacity_qps()) == (0.0, 0.0)


def test_a_probe_without_answers_changes_no_parameter() -> None:
    log = run(CALIBRATION, 15.0, 500)
    silent = RequestLog(
        log.scheduled_ns,
        log.first_token_ns * 0 - 1,
        log.done_ns * 0 - 1,
        log.input_tokens,
        log.output_tokens * 0,
        log.prefill_worker,
        log.decode_worker,
        log.error,
    )
    forecast, initial = SimulatorForecast(SPEC, CALIBRATION), SimulatorForecast(SPEC, CALIBRATION).fitted
    forecast.learn(15.0, silent, full=True)
    assert forecast.fitted == initial


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", ["prefill", "decode"])
def test_a_short_probe_gives_both_pool_capacities(bottleneck: Role) -> None:
    """The capacity of the pool that is not the bottleneck is right within a few percent."""
    slow = {f"{bottleneck}_scale": getattr(CALIBRATION, f"{bottleneck}_scale") * 1.3}
    hardware = CALIBRATION.model_copy(update=slow)
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(12.0, run(hardware, 12.0, 900), full=False)
    pools = {role: forecast.pool_capacity_qps(role) for role in ROLES}
    assert min(pools, key=lambda role: pools[role]) == bottleneck
    assert pools[bottleneck] >= 0.99 * forecast.full_run_qps()
    for role, qps in pools.items():
        for factor, held in ((0.94, True), (1.06, False)):
            load = SPEC.load.at(qps * factor)
            log = simulate_serving(SPEC.model_copy(update={"load": load}), hardware, role)
            late = max(int(mask.sum()) for mask in late_requests(log, SPEC.slo))
            assert (late <= late_allowed(len(log))) == held, (role, factor)


@pytest.mark.slow
@pytest.mark.parametrize("queries", [700, 1500])
def test_a_stopped_run_is_compared_with_the_start_of_one(queries: int) -> None:
    """Hardware that equals the calibration leaves nothing to fit, however early the run was stopped."""
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(17.0, first_requests(run(CALIBRATION, 17.0), queries), full=True)
    for name, value in forecast.fitted.items():
        assert value == pytest.approx(getattr(CALIBRATION, name), rel=1e-9), name
    assert abs(forecast.log_rate_residual()) < 0.02


def majority_holds(spec: TrialSpec, qps: float) -> bool:
    """Return whether at least half of several shuffles hold."""
    loads = (spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": seed}) for seed in range(9))
    logs = (simulate_serving(spec.model_copy(update={"load": load}), CALIBRATION) for load in loads)
    return sum(slo_holds(log, spec.slo) for log in logs) >= 5


@pytest.mark.slow
def test_capacity_is_found_where_late_requests_hardly_grow_with_the_rate() -> None:
    """Long answers use up a limit on the latency: a margin in late requests cost 10 % of the rate."""
    words = ("split.prefill_workers=12", "split.decode_workers=6", "prefill.max_num_tokens=16384")
    limits = {"ttft_p50_s": 1.0, "ttft_p99_s": None, "tpot_p99_s": None, "latency_p99_s": 50.0}
    spec = composed(
        *words, "decode.max_batch_size=96", *(f"slo.{k}={v or 'null'}" for k, v in limits.items())
    )
    trial = spec.trial_spec
    forecast = SimulatorForecast(trial, CALIBRATION)
    forecast.learn(11.0, run(CALIBRATION, 11.0, 1200, trial), full=False)
    full_run_qps, capacity_qps = forecast.full_run_qps(), forecast.capacity_qps()
    assert majority_holds(trial, 0.985 * capacity_qps)
    assert not majority_holds(trial, 1.015 * capacity_qps)
    assert 0.97 * capacity_qps < full_run_qps < 1.01 * capacity_qps
