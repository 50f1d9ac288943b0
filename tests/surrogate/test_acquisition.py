"""Expected gain, and the chance that a configuration runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.surrogate.acquisition import (
    CRASH_FRAC,
    EARLY_STOP_FRAC,
    early_stop_threshold_qps,
    expected_improvement,
    feasibility_probability,
    improvement_at_rates,
    min_of_normals,
)


@pytest.mark.parametrize(("mean", "sd"), [(2.0, 0.1), (2.5, 0.3), (1.8, 0.2)])
def test_the_gain_is_the_mean_of_what_lies_above_the_best(mean: float, sd: float) -> None:
    drawn = np.exp(np.random.default_rng(0).normal(mean, sd, 400_000))
    expected = np.maximum(drawn - 9.0, 0).mean() / 9.0
    found = expected_improvement(np.array([[mean]]), np.array([[sd]]), 9.0)[0]
    assert found == pytest.approx(expected, rel=0.02, abs=1e-5)


@pytest.mark.parametrize("apart", [0.0, 0.1, -0.3, 2.0, -2.0])
@pytest.mark.parametrize("sds", [(0.1, 0.1), (0.02, 0.3)])
def test_the_lower_of_two_is_what_draws_say(apart: float, sds: tuple[float, float]) -> None:
    draws = np.random.default_rng(0).normal(size=(2, 400_000))
    lower = np.minimum(2.0 + sds[0] * draws[0], 2.0 + apart + sds[1] * draws[1])
    mean, sd = min_of_normals(np.array([[[2.0]], [[2.0 + apart]]]), np.array(sds)[:, None])
    assert mean[0, 0] == pytest.approx(lower.mean(), abs=1e-3)
    assert sd[0, 0] == pytest.approx(lower.std(), rel=0.01)


@given(best=st.floats(1.0, 30.0), more=st.floats(1.0, 2.0))
def test_a_better_best_leaves_less_to_gain(best: float, more: float) -> None:
    ln_mean, sd = np.array([[2.0, 2.5], [2.2, 2.4]]), np.array([[0.1, 0.05]] * 2)
    lower, higher = (expected_improvement(ln_mean, sd, one) for one in (best * more, best))
    assert (lower <= higher + 1e-12).all()


def test_crashes_make_their_neighbours_doubtful_and_runs_make_them_safe() -> None:
    features = np.linspace(0, 1, 11)[:, None]
    untried = feasibility_probability(features, np.zeros(0, int), np.zeros(0, bool))
    assert (untried == 1 - CRASH_FRAC).all()
    crashed = feasibility_probability(features, np.array([0, 10]), np.array([True, False]))
    assert crashed[1] < crashed[5] < crashed[9]
    assert crashed[9] > 1 - CRASH_FRAC


@given(mean=st.floats(2.0, 3.0), sd=st.floats(0.02, 0.3), best=st.floats(5.0, 15.0))
def test_a_run_at_one_rate_gains_at_most_what_the_boundary_would(mean: float, sd: float, best: float) -> None:
    rates = np.linspace(4.0, 30.0, 60)
    at_rates = improvement_at_rates(np.array([[mean]]), np.array([sd]), best, rates)[0]
    boundary = expected_improvement(np.array([[mean]]), np.array([[sd]]), best)[0]
    assert (at_rates[rates <= best] == 0).all()
    assert at_rates.max() <= boundary + 1e-8, "what is FAR off is not counted"


def test_the_chance_to_hold_a_rate_is_the_share_of_boundaries_above_it() -> None:
    drawn = np.exp(np.random.default_rng(0).normal([[2.0], [2.4]], 0.1, (2, 200_000))).ravel()
    found = improvement_at_rates(np.array([[2.0], [2.4]]), np.array([0.1]), 8.0, np.array([9.0]))[0, 0]
    assert found == pytest.approx((drawn >= 9.0).mean() / 8, rel=0.02)


def outdone(qps: list[list[float]], sd: float = 0.05) -> float:
    """Of the first of two configurations, by what racks (rows) say of both."""
    rates = np.array(qps)
    return early_stop_threshold_qps(np.log(rates[:, 0]), np.full(len(rates), sd), rates[:, 1:])


def test_below_what_another_should_come_to_it_is_outdone_but_for_a_share() -> None:
    assert outdone([[10.0, 9.9]]) == pytest.approx(EARLY_STOP_FRAC * 9.9, rel=0.01)
    assert outdone([[10.0, 20.0]]) > 10.0 * 1.1, "whatever it comes to"
    assert outdone([[10.0, 5.0]]) == 0.0, "whatever it comes to, it is worth knowing"
    assert outdone([[10.0]]) == 0.0, "there is no other"


def test_what_it_comes_to_tells_what_others_will() -> None:
    """On average the other is expected to come to 16; on racks where this one does 10, to 8."""
    assert outdone([[20.0, 24.0]], sd=0.15) > 16.0
    assert outdone([[20.0, 24.0], [10.0, 8.0]], sd=0.15) == pytest.approx(EARLY_STOP_FRAC * 8.0, rel=0.05)


@given(
    qps=st.lists(st.tuples(st.floats(2.0, 30.0), st.floats(2.0, 30.0)), min_size=1, max_size=5),
    sd=st.floats(0.02, 0.2),
    more=st.floats(1.0, 2.0),
)
def test_of_whom_more_is_expected_outdoes_more(
    qps: list[tuple[float, float]], sd: float, more: float
) -> None:
    less, greater = (outdone([[own, times * other] for own, other in qps], sd) for times in (1.0, more))
    assert less <= greater
    assert less <= EARLY_STOP_FRAC * max(other for _, other in qps)
