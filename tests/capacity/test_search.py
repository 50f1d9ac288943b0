"""Test the order of probes with forecasts that are right, wrong, or know of no rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.loads import make_load

from tune.capacity.search import (
    EARLY_STOP_MARGIN_FRAC,
    FULL_RUN_STEP_FRAC,
    MAX_FULL_RUNS,
    MAX_SHORT_PROBES,
    RANGE_WIDENING_FACTOR,
    CapacityResult,
    ProbePlan,
    ProbeVerdict,
    next_step,
    search_capacity,
    short_run_queries,
)
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.records.requests import RequestLog
from tune.spec.load import Load, readable_qps
from tune.spec.split import Role

LOAD = make_load(samples=8313)


@dataclass
class FixedForecast:
    """Forecast `qps`, and after each probe `drift` times as much."""

    qps: float
    drift: float = 1.0
    learned: int = 0
    residual: float = 0.0
    pooled_qps: float = math.inf

    def learn(self, target_qps: float, log: RequestLog, *, full: bool) -> None:
        assert len(log) == 0
        assert full or target_qps > 0
        self.learned += 1
        self.qps *= self.drift

    def full_run_qps(self) -> float:
        return self.qps

    def capacity_qps(self) -> float:
        return self.qps * 1.02

    def holds_pooled(self, qps: float) -> bool:
        return qps <= self.pooled_qps

    def pool_capacity_qps(self, role: Role) -> float:
        return self.qps * {"prefill": 1.5, "decode": 1.03}[role]

    def log_rate_residual(self) -> float:
        return self.residual


def empty_log() -> RequestLog:
    times, none = np.zeros(0, np.int64), np.zeros(0, "<U1")
    return RequestLog(times, times, times, times, times, times, times, none)


def run_search(
    forecast: FixedForecast, true_qps: float, load: Load = LOAD, early_stop_qps: float | None = None
) -> tuple[CapacityResult, list[ProbeVerdict]]:
    """Search on a deployment that holds its SLO up to `true_qps`."""

    def measure(plan: ProbePlan) -> tuple[RequestLog, bool]:
        return empty_log(), plan.target_qps <= true_qps

    *verdicts, result = search_capacity(load, forecast, measure, early_stop_qps)
    assert isinstance(result, CapacityResult)
    assert all(isinstance(verdict, ProbeVerdict) for verdict in verdicts)
    return result, [verdict for verdict in verdicts if isinstance(verdict, ProbeVerdict)]


def test_a_right_forecast_costs_one_short_probe_and_one_full_run() -> None:
    result, verdicts = run_search(FixedForecast(10.0), true_qps=10.1)
    assert [verdict.plan for verdict in verdicts] == [ProbePlan(10.0, 1200), ProbePlan(10.0, None)]
    assert result == CapacityResult(10.0, None, 10.2, 15.0, 10.3)


def test_short_probes_follow_the_forecast_and_are_limited() -> None:
    result, verdicts = run_search(FixedForecast(10.0, drift=1.2), true_qps=1000.0)
    assert [verdict.plan.queries is None for verdict in verdicts[:MAX_SHORT_PROBES]] == [
        False
    ] * MAX_SHORT_PROBES
    assert sum(verdict.plan.queries is None for verdict in verdicts) == MAX_FULL_RUNS
    assert result.verified_qps == max(verdict.plan.target_qps for verdict in verdicts)


@given(st.floats(0.1, 40.0), st.floats(0.9, 1.5), st.floats(0.97, 1.03))
@example(true_qps=10.453125, off=1.4261251185291268, drift=1.0062282542009249)
def test_the_verified_rate_held_and_no_run_follows_above_a_miss(
    true_qps: float, off: float, drift: float
) -> None:
    result, verdicts = run_search(FixedForecast(true_qps * off, drift), true_qps)
    full = [verdict for verdict in verdicts if verdict.plan.queries is None]
    assert len(full) <= MAX_FULL_RUNS
    held = [verdict.plan.target_qps for verdict in full if verdict.slo_met]
    assert result.verified_qps == max(held, default=None)
    missed = float("inf")
    for verdict in full:
        assert verdict.plan.target_qps <= missed * (1 - FULL_RUN_STEP_FRAC) * (1 + 1e-12)
        missed = min(missed, verdict.plan.target_qps) if not verdict.slo_met else missed


def test_a_miss_lowers_the_next_run_and_a_hit_ends() -> None:
    result, verdicts = run_search(FixedForecast(10.0), true_qps=9.95)
    assert [verdict.slo_met for verdict in verdicts if verdict.plan.queries is None] == [False, True]
    assert result.verified_qps == pytest.approx(10.0 * (1 - FULL_RUN_STEP_FRAC), rel=1e-3)
    assert result.missed_qps == 10.0


def test_a_further_full_run_needs_a_gain_above_the_resolution() -> None:
    verdicts = [ProbeVerdict(ProbePlan(10.0, None), slo_met=True)]
    little, much = 10.0 * (1 + LOAD.resolution), 10.0 * (1 + 2 * LOAD.resolution)
    assert isinstance(next_step(verdicts, FixedForecast(little), LOAD), CapacityResult)
    assert next_step(verdicts, FixedForecast(much), LOAD) == ProbePlan(much, None)


def test_without_a_feasible_rate_one_short_probe_is_enough() -> None:
    result, verdicts = run_search(FixedForecast(0.0), true_qps=0.0)
    assert [verdict.plan for verdict in verdicts] == [ProbePlan(LOAD.target_qps, 1200)]
    assert result == CapacityResult(None, None, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("pooled_qps", "planned_qps"), [(9.9, 9.84), (5.0, 9.683)])
def test_a_rate_that_fails_pooled_over_shuffles_is_lowered(pooled_qps: float, planned_qps: float) -> None:
    """It is lowered by steps of 0.8 %, four at most."""
    _, verdicts = run_search(FixedForecast(10.0, pooled_qps=pooled_qps), true_qps=10.1)
    assert verdicts[1].plan == ProbePlan(planned_qps, None)


def test_a_deployment_below_the_threshold_stops_after_one_short_probe() -> None:
    result, verdicts = run_search(FixedForecast(10.0), true_qps=10.1, early_stop_qps=16.0)
    assert [verdict.plan for verdict in verdicts] == [ProbePlan(16.23, 1200)]
    assert result == CapacityResult(None, None, 10.2, 15.0, 10.3, stopped_early=True)


def test_a_deployment_above_the_threshold_is_searched_from_just_above_it() -> None:
    result, verdicts = run_search(FixedForecast(20.0), true_qps=20.1, early_stop_qps=16.0)
    assert [verdict.plan for verdict in verdicts] == [
        ProbePlan(16.23, 1200),
        ProbePlan(20.0, 1200),
        ProbePlan(20.0, None),
    ]
    assert result == CapacityResult(20.0, None, 20.4, 30.0, 20.6)


@given(st.floats(1.0, 30.0), st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.9, 1.1))
def test_early_stops_need_a_miss_and_a_clearly_lower_forecast(
    true_qps: float, off: float, threshold_frac: float, drift: float
) -> None:
    forecast = FixedForecast(true_qps * off, drift)
    result, verdicts = run_search(forecast, true_qps, early_stop_qps=true_qps * threshold_frac)
    if result.stopped_early:
        assert forecast.qps < true_qps * threshold_frac * (1 - EARLY_STOP_MARGIN_FRAC)
        assert not any(verdict.slo_met and verdict.plan.queries is None for verdict in verdicts)
        assert any(verdict.slo_met is False for verdict in verdicts)
        assert result.verified_qps is None


@given(st.floats(0.01, 1000.0))
def test_planned_rates_have_four_digits_and_are_rounded_down(qps: float) -> None:
    plan = next_step([], FixedForecast(qps), LOAD)
    assert isinstance(plan, ProbePlan)
    assert qps * 0.998 <= plan.target_qps <= qps * (1 + 1e-12)
    assert float(f"{plan.target_qps:.4g}") == plan.target_qps


@given(st.integers(1, 100_000))
def test_short_probes_suffice_for_a_verdict_if_the_run_does(planned: int) -> None:
    assert min(planned, MIN_QUERIES) <= short_run_queries(planned) <= planned


def limited(low: float, high: float) -> Load:
    return LOAD.model_copy(update={"rate_range_qps": (low, high)})


@given(
    st.floats(0.1, 40.0), st.floats(0.9, 1.5), st.floats(0.97, 1.03), st.floats(1.0, 20.0), st.floats(1, 3)
)
def test_rates_leave_the_range_only_past_an_end_that_was_reached_and_none_misses_twice(
    true_qps: float, off: float, drift: float, low: float, width: float
) -> None:
    _, verdicts = run_search(FixedForecast(true_qps * off, drift), true_qps, limited(low, low * width))
    lowest, highest = low, low * width
    for verdict in verdicts:
        qps = verdict.plan.target_qps
        assert lowest <= qps <= highest
        if width > 1 and verdict.slo_met and qps >= readable_qps(highest):
            highest *= RANGE_WIDENING_FACTOR
        if width > 1 and not verdict.slo_met and qps <= lowest:
            lowest /= RANGE_WIDENING_FACTOR
    missed = [
        verdict.plan.target_qps
        for verdict in verdicts
        if verdict.plan.queries is None and not verdict.slo_met
    ]
    assert len(set(missed)) == len(missed)


def test_an_end_of_the_range_that_is_no_answer_is_left_behind() -> None:
    result, verdicts = run_search(FixedForecast(10.0), 10.1, limited(5.0, 8.0))
    assert [verdict.plan for verdict in verdicts] == [
        ProbePlan(8.0, 1200),
        ProbePlan(10.0, 1200),
        ProbePlan(10.0, None),
    ]
    assert (result.verified_qps, result.missed_qps) == (10.0, None)
    result, verdicts = run_search(FixedForecast(10.0), 10.1, limited(12.0, 20.0))
    assert [verdict.plan.target_qps for verdict in verdicts] == [12.0, 10.0, 10.0]
    assert (result.verified_qps, result.missed_qps) == (10.0, None)


def test_a_range_is_left_by_steps_however_far_the_forecast_goes() -> None:
    _, verdicts = run_search(FixedForecast(100.0), 9.0, limited(5.0, 8.0))
    assert [verdict.plan.target_qps for verdict in verdicts[:2]] == [8.0, 8.0 * RANGE_WIDENING_FACTOR]
    assert not verdicts[1].slo_met


def test_a_range_of_one_rate_pins_the_rate() -> None:
    result, verdicts = run_search(FixedForecast(10.0), 100.0, limited(8.0, 8.0))
    assert {verdict.plan.target_qps for verdict in verdicts} == {8.0}
    assert (result.verified_qps, result.missed_qps) == (8.0, None)


@pytest.mark.parametrize(("held", "residual"), [(False, -0.1), (None, 0.0)])
def test_an_unexpected_miss_and_an_invalid_run_are_repeated_once(held: bool | None, residual: float) -> None:
    verdicts, forecast = [ProbeVerdict(ProbePlan(10.0, None), held)], FixedForecast(10.0, residual=residual)
    assert next_step(verdicts, forecast, LOAD) == ProbePlan(10.0, None)
    assert next_step(
        [*verdicts, ProbeVerdict(ProbePlan(10.0, None), slo_met=True)], forecast, LOAD
    ) == CapacityResult(10.0, None, 10.2, 15.0, 10.3)
    after = next_step([*verdicts, *verdicts], forecast, LOAD)
    if held is None:
        assert after == CapacityResult(None, 10.0, 10.2, 15.0, 10.3)
    else:
        assert isinstance(after, ProbePlan)
        assert after.target_qps < 10.0
    expected = next_step(
        [ProbeVerdict(ProbePlan(10.0, None), slo_met=False)], FixedForecast(10.0, residual=-0.02), LOAD
    )
    assert isinstance(expected, ProbePlan)
    assert expected.target_qps < 10.0
