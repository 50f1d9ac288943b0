"""Which probe comes next: against forecasts that are right, wrong, or know of no rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.loads import make_load

from tune.capacity.search import (
    BEATEN_FRAC,
    MOST_FULL,
    MOST_SHORT,
    STEP_FRAC,
    CapacityResult,
    ProbePlan,
    ProbeVerdict,
    next_step,
    search_capacity,
    short_run_queries,
)
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.records.requests import RequestLog
from tune.spec.load import Load
from tune.spec.split import Role

LOAD = make_load(samples=8313)


@dataclass
class Believer:
    """Expects `qps`, and after each probe `drift` times as much."""

    qps: float
    drift: float = 1.0
    learned: int = 0
    surprised: float = 0.0
    held_in_all: float = math.inf

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
        return qps <= self.held_in_all

    def pool_capacity_qps(self, role: Role) -> float:
        return self.qps * {"prefill": 1.5, "decode": 1.03}[role]

    def surprise(self) -> float:
        return self.surprised


def nothing() -> RequestLog:
    times, none = np.zeros(0, np.int64), np.zeros(0, "<U1")
    return RequestLog(times, times, times, times, times, times, times, none)


def explored(
    forecast: Believer, true_qps: float, load: Load = LOAD, early_stop_qps: float | None = None
) -> tuple[CapacityResult, list[ProbeVerdict]]:
    def measure(ask: ProbePlan) -> tuple[RequestLog, bool]:
        return nothing(), ask.target_qps <= true_qps

    *seen, answer = search_capacity(load, forecast, measure, early_stop_qps)
    assert isinstance(answer, CapacityResult)
    assert all(isinstance(one, ProbeVerdict) for one in seen)
    return answer, [one for one in seen if isinstance(one, ProbeVerdict)]


def test_a_right_forecast_costs_one_short_probe_and_one_run() -> None:
    answer, seen = explored(Believer(10.0), true_qps=10.1)
    assert [one.ask for one in seen] == [ProbePlan(10.0, 1200), ProbePlan(10.0, None)]
    assert answer == CapacityResult(10.0, None, 10.2, 15.0, 10.3)


def test_short_probes_go_where_the_forecast_moves_and_have_an_end() -> None:
    answer, seen = explored(Believer(10.0, drift=1.2), true_qps=1000.0)
    assert [one.ask.queries is None for one in seen[:MOST_SHORT]] == [False] * MOST_SHORT
    assert sum(one.ask.queries is None for one in seen) == MOST_FULL
    assert answer.verified_qps == max(one.ask.target_qps for one in seen)


@given(st.floats(0.1, 40.0), st.floats(0.9, 1.5), st.floats(0.97, 1.03))
@example(true_qps=10.453125, off=1.4261251185291268, drift=1.0062282542009249)
def test_the_answer_is_what_held_and_was_never_asked_again_above_a_miss(
    true_qps: float, off: float, drift: float
) -> None:
    answer, seen = explored(Believer(true_qps * off, drift), true_qps)
    full = [one for one in seen if one.ask.queries is None]
    assert len(full) <= MOST_FULL
    held = [one.ask.target_qps for one in full if one.held]
    assert answer.verified_qps == max(held, default=None)
    missed = float("inf")
    for one in full:
        assert one.ask.target_qps <= missed * (1 - STEP_FRAC) * (1 + 1e-12)
        missed = min(missed, one.ask.target_qps) if not one.held else missed


def test_after_a_miss_the_next_run_is_lower_and_a_hit_ends_it() -> None:
    answer, seen = explored(Believer(10.0), true_qps=9.95)
    assert [one.held for one in seen if one.ask.queries is None] == [False, True]
    assert answer.verified_qps == pytest.approx(10.0 * (1 - STEP_FRAC), rel=1e-3)
    assert answer.missed_qps == 10.0


def test_more_is_asked_only_where_it_is_worth_a_run() -> None:
    seen = [ProbeVerdict(ProbePlan(10.0, None), held=True)]
    little, much = 10.0 * (1 + LOAD.resolution), 10.0 * (1 + 2 * LOAD.resolution)
    assert isinstance(next_step(seen, Believer(little), LOAD), CapacityResult)
    assert next_step(seen, Believer(much), LOAD) == ProbePlan(much, None)


def test_without_a_rate_that_should_hold_one_short_probe_at_the_trials_rate_is_all() -> None:
    answer, seen = explored(Believer(0.0), true_qps=0.0)
    assert [one.ask for one in seen] == [ProbePlan(LOAD.target_qps, 1200)]
    assert answer == CapacityResult(None, None, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("in_all", "asked_qps"), [(9.9, 9.84), (5.0, 9.683)])
def test_a_rate_that_should_not_hold_in_all_orders_together_is_put_lower(
    in_all: float, asked_qps: float
) -> None:
    """By steps of 0.8 %, four at most."""
    _, seen = explored(Believer(10.0, held_in_all=in_all), true_qps=10.1)
    assert seen[1].ask == ProbePlan(asked_qps, None)


def test_a_deployment_that_clearly_cannot_beat_the_best_is_given_up_after_one_short_probe() -> None:
    answer, seen = explored(Believer(10.0), true_qps=10.1, early_stop_qps=16.0)
    assert [one.ask for one in seen] == [ProbePlan(16.23, 1200)]
    assert answer == CapacityResult(None, None, 10.2, 15.0, 10.3, censored=True)


def test_one_that_may_beat_it_is_asked_on_from_just_above_it() -> None:
    answer, seen = explored(Believer(20.0), true_qps=20.1, early_stop_qps=16.0)
    assert [one.ask for one in seen] == [ProbePlan(16.23, 1200), ProbePlan(20.0, 1200), ProbePlan(20.0, None)]
    assert answer == CapacityResult(20.0, None, 20.4, 30.0, 20.6)


@given(st.floats(1.0, 30.0), st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.9, 1.1))
def test_none_is_given_up_that_held_or_that_the_forecast_does_not_put_clearly_below(
    true_qps: float, off: float, beat_frac: float, drift: float
) -> None:
    forecast = Believer(true_qps * off, drift)
    answer, seen = explored(forecast, true_qps, early_stop_qps=true_qps * beat_frac)
    if answer.censored:
        assert forecast.qps < true_qps * beat_frac * (1 - BEATEN_FRAC)
        assert not any(one.held and one.ask.queries is None for one in seen)
        assert any(one.held is False for one in seen)
        assert answer.verified_qps is None


@given(st.floats(0.01, 1000.0))
def test_what_is_asked_has_four_digits_and_is_never_more(qps: float) -> None:
    ask = next_step([], Believer(qps), LOAD)
    assert isinstance(ask, ProbePlan)
    assert qps * 0.998 <= ask.target_qps <= qps * (1 + 1e-12)
    assert float(f"{ask.target_qps:.4g}") == ask.target_qps


@given(st.integers(1, 100_000))
def test_short_probes_suffice_for_a_verdict_where_the_run_does(planned: int) -> None:
    assert min(planned, MIN_QUERIES) <= short_run_queries(planned) <= planned


def bracketed(low: float, high: float) -> Load:
    return LOAD.model_copy(update={"rate_range_qps": (low, high)})


@given(
    st.floats(0.1, 40.0), st.floats(0.9, 1.5), st.floats(0.97, 1.03), st.floats(1.0, 20.0), st.floats(1, 3)
)
def test_no_rate_outside_of_the_bracket_is_asked_and_none_missed_twice(
    true_qps: float, off: float, drift: float, low: float, width: float
) -> None:
    _, seen = explored(Believer(true_qps * off, drift), true_qps, bracketed(low, low * width))
    assert all(low <= one.ask.target_qps <= low * width for one in seen)
    missed = [one.ask.target_qps for one in seen if one.ask.queries is None and not one.held]
    assert len(set(missed)) == len(missed)


def test_what_holds_at_the_upper_end_of_the_bracket_or_misses_at_the_lower_is_the_answer() -> None:
    answer, seen = explored(Believer(10.0), 100.0, bracketed(5.0, 8.0))
    assert (answer.verified_qps, answer.missed_qps, len(seen)) == (8.0, None, 2)
    answer, seen = explored(Believer(10.0), 1.0, bracketed(12.0, 20.0))
    assert (answer.verified_qps, answer.missed_qps, len(seen)) == (None, 12.0, 2)


@pytest.mark.parametrize(("held", "surprised"), [(False, -0.1), (None, 0.0)])
def test_a_run_that_nobody_expected_to_miss_or_that_says_nothing_is_repeated_once(
    held: bool | None, surprised: float
) -> None:
    seen, believer = [ProbeVerdict(ProbePlan(10.0, None), held)], Believer(10.0, surprised=surprised)
    assert next_step(seen, believer, LOAD) == ProbePlan(10.0, None)
    assert next_step(
        [*seen, ProbeVerdict(ProbePlan(10.0, None), held=True)], believer, LOAD
    ) == CapacityResult(10.0, None, 10.2, 15.0, 10.3)
    after = next_step([*seen, *seen], believer, LOAD)
    if held is None:
        assert after == CapacityResult(None, 10.0, 10.2, 15.0, 10.3)
    else:
        assert isinstance(after, ProbePlan)
        assert after.target_qps < 10.0
    expected = next_step(
        [ProbeVerdict(ProbePlan(10.0, None), held=False)], Believer(10.0, surprised=-0.02), LOAD
    )
    assert isinstance(expected, ProbePlan)
    assert expected.target_qps < 10.0
