"""A forecast recovers what was changed on the rack, and says how fast it can be asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tune.analysis.slo import late_requests
from tune.capacity.search import DOUBT_FRAC, short_run_queries
from tune.capacity.simulator_forecast import SLOW_WORKER_SCALE, SimulatorForecast
from tune.config import compose_overrides
from tune.loadgen.early_stopping import late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

SHORT = ("load.dataset.samples=2000", "load.min_duration_s=60.0", "load.min_queries=2000")
SETTINGS = compose_overrides(SHORT).settings
SPEC = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration is not None
CALIBRATION: Calibration = SETTINGS.cluster.calibration


def run(rack: Calibration, qps: float, queries: int | None = None, spec: TrialSpec = SPEC) -> RequestLog:
    load = spec.load.model_copy(update={"target_qps": qps})
    load = load if queries is None else load.sample(queries)
    return simulate(spec.model_copy(update={"load": load}), rack)


def holds(rack: Calibration, qps: float, spec: TrialSpec = SPEC) -> bool:
    log = run(rack, qps)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def highest_qps(rack: Calibration) -> float:
    low, high = 8.0, 24.0
    while high / low > 1.003:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(rack, middle) else (low, middle)
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
def test_one_short_probe_tells_the_rack(hidden: dict[str, float]) -> None:
    rack = CALIBRATION.model_copy(update=hidden)
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(15.0, run(rack, 15.0, 900), full=False)
    for name, value in hidden.items():
        assert forecast.fitted[name] == pytest.approx(value, rel=0.03), name
    assert forecast.full_run_qps() == pytest.approx(highest_qps(rack), rel=0.03)


@pytest.mark.slow
def test_what_a_short_probe_happens_to_ask_does_not_move_the_boundary() -> None:
    rack = CALIBRATION.model_copy(update={"prefill_scale": SLOWER_PREFILL, "decode_scale": FASTER_DECODE})
    queries = short_run_queries(SPEC.load.expected_queries)

    def capacity_qps(order: int) -> float:
        load = SPEC.load.model_copy(update={"shuffle_seed": order})
        spec = SPEC.model_copy(update={"load": load})
        forecast = SimulatorForecast(spec, CALIBRATION)
        forecast.learn(15.0, run(rack, 15.0, queries, spec), full=False)
        return forecast.capacity_qps()

    found = [capacity_qps(order) for order in range(3)]
    assert max(found) < 1.01 * min(found)


def test_a_run_of_full_length_corrects_what_no_hypothesis_explains() -> None:
    rack = CALIBRATION.model_copy(update={"kv_transfer_bytes_per_s": 4e9})
    forecast, true_qps = SimulatorForecast(SPEC, CALIBRATION), highest_qps(rack)
    forecast.learn(15.0, run(rack, 15.0, 900), full=False)
    asked_qps = forecast.full_run_qps()
    forecast.learn(asked_qps, run(rack, asked_qps), full=True)
    assert abs(forecast.full_run_qps() / true_qps - 1) < abs(asked_qps / true_qps - 1) / 2


def stalled(log: RequestLog, since_s: float, lasts_s: float) -> RequestLog:
    """`log` where nothing was answered for a while: what arrived then waits until its end."""
    arrived_s = log.scheduled_ns / 1e9
    late = (arrived_s > since_s) & (arrived_s < since_s + lasts_s)
    wait_ns = np.where(late, (since_s + lasts_s - arrived_s) * 1e9, 0).astype(np.int64)
    return replace(log, first_token_ns=log.first_token_ns + wait_ns, done_ns=log.done_ns + wait_ns)


@pytest.mark.slow
def test_a_run_that_stalled_is_a_surprise_and_one_that_did_not_is_none() -> None:
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    assert forecast.surprise() == 0.0
    forecast.learn(15.0, run(CALIBRATION, 15.0, 900), full=False)
    asked_qps = forecast.full_run_qps()
    forecast.learn(asked_qps, run(CALIBRATION, asked_qps), full=True)
    assert abs(forecast.surprise()) < DOUBT_FRAC / 2
    forecast.learn(asked_qps, stalled(run(CALIBRATION, asked_qps), 60.0, 8.0), full=True)
    assert forecast.surprise() < -DOUBT_FRAC


def test_without_a_probe_it_is_the_calibrations_own_word() -> None:
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    assert holds(CALIBRATION, forecast.full_run_qps())
    assert forecast.fitted["prefill_scale"] == CALIBRATION.prefill_scale
    assert forecast.capacity_qps() == pytest.approx(forecast.full_run_qps(), rel=0.07)


def test_a_rack_that_no_rate_suits_has_none() -> None:
    slo = SPEC.slo.model_copy(update={"ttft_p99_s": 0.1})
    forecast = SimulatorForecast(SPEC.model_copy(update={"slo": slo}), CALIBRATION)
    assert (forecast.full_run_qps(), forecast.capacity_qps()) == (0.0, 0.0)


def test_a_probe_without_answers_teaches_nothing() -> None:
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
    forecast, before = SimulatorForecast(SPEC, CALIBRATION), SimulatorForecast(SPEC, CALIBRATION).fitted
    forecast.learn(15.0, silent, full=True)
    assert forecast.fitted == before


@pytest.mark.slow
@pytest.mark.parametrize("binds", ["prefill", "decode"])
def test_what_each_pool_could_do_alone_is_told_by_a_short_probe(binds: Role) -> None:
    """Both, whichever binds: the other one to a few percent of what it could do."""
    slow = {f"{binds}_scale": getattr(CALIBRATION, f"{binds}_scale") * 1.3}
    rack = CALIBRATION.model_copy(update=slow)
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(12.0, run(rack, 12.0, 900), full=False)
    told = {role: forecast.pool_capacity_qps(role) for role in ROLES}
    assert min(told, key=lambda role: told[role]) == binds
    assert told[binds] >= 0.99 * forecast.full_run_qps()
    for role, qps in told.items():
        for factor, held in ((0.94, True), (1.06, False)):
            load = SPEC.load.at(qps * factor)
            log = simulate(SPEC.model_copy(update={"load": load}), rack, role)
            late = max(int(one.sum()) for one in late_requests(log, SPEC.slo))
            assert (late <= late_allowed(len(log))) == held, (role, factor)


@pytest.mark.slow
@pytest.mark.parametrize("queries", [700, 1500])
def test_a_run_that_was_stopped_is_held_against_the_beginning_of_one(queries: int) -> None:
    """Of a rack that is as the calibration says nothing is left to fit, however early it was stopped."""
    forecast = SimulatorForecast(SPEC, CALIBRATION)
    forecast.learn(17.0, first_requests(run(CALIBRATION, 17.0), queries), full=True)
    for name, value in forecast.fitted.items():
        assert value == pytest.approx(getattr(CALIBRATION, name), rel=1e-9), name
    assert abs(forecast.surprise()) < 0.02
