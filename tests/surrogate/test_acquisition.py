"""Test expected improvement, probability of feasibility and the early-stop threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.surrogate.acquisition import (
    EARLY_STOP_FRAC,
    PRIOR_CRASH_FRAC,
    early_stop_threshold_qps,
    expected_improvement,
    feasibility_probability,
    improvement_at_rates,
    min_of_normals,
)


@pytest.mark.parametrize(("mean", "sd"), [(2.0, 0.1), (2.5, 0.3), (1.8, 0.2)])
def test_expected_improvement_equals_the_mean_excess_over_the_best(mean: float, sd: float) -> None:
    drawn = np.exp(np.random.default_rng(0).normal(mean, sd, 400_000))
    expected = np.maximum(drawn - 9.0, 0).mean() / 9.0
    improvement = expected_improvement(np.array([[mean]]), np.array([[sd]]), 9.0)[0]
    assert improvement == pytest.approx(expected, rel=0.02, abs=1e-5)


@pytest.mark.parametrize("difference", [0.0, 0.1, -0.3, 2.0, -2.0])
@pytest.mark.parametrize("sds", [(0.1, 0.1), (0.02, 0.3)])
def test_minimum_of_two_normals_matches_monte_carlo(difference: float, sds: tuple[float, float]) -> None:
    draws = np.random.default_rng(0).normal(size=(2, 400_000))
    lower = np.minimum(2.0 + sds[0] * draws[0], 2.0 + difference + sds[1] * draws[1])
    mean, sd = min_of_normals(np.array([[[2.0]], [[2.0 + difference]]]), np.array(sds)[:, None])
    assert mean[0, 0] == pytest.approx(lower.mean(), abs=1e-3)
    assert sd[0, 0] == pytest.approx(lower.std(), rel=0.01)


@given(best=st.floats(1.0, 30.0), factor=st.floats(1.0, 2.0))
def test_a_higher_best_rate_leaves_less_improvement(best: float, factor: float) -> None:
    log_mean, sd = np.array([[2.0, 2.5], [2.2, 2.4]]), np.array([[0.1, 0.05]] * 2)
    lower, higher = (expected_improvement(log_mean, sd, rate) for rate in (best * factor, best))
    assert (lower <= higher + 1e-12).all()


def test_crashes_lower_feasibility_nearby_and_runs_raise_it() -> None:
    features = np.linspace(0, 1, 11)[:, None]
    untried = feasibility_probability(features, np.zeros(0, int), np.zeros(0, bool))
    assert (untried == 1 - PRIOR_CRASH_FRAC).all()
    probability = feasibility_probability(features, np.array([0, 10]), np.array([True, False]))
    assert probability[1] < probability[5] < probability[9]
    assert probability[9] > 1 - PRIOR_CRASH_FRAC


@given(mean=st.floats(2.0, 3.0), sd=st.floats(0.02, 0.3), best=st.floats(5.0, 15.0))
def test_a_run_at_one_rate_improves_no_more_than_its_capacity(mean: float, sd: float, best: float) -> None:
    rates = np.linspace(4.0, 30.0, 60)
    at_rates = improvement_at_rates(np.array([[mean]]), np.array([sd]), best, rates)[0]
    capacity = expected_improvement(np.array([[mean]]), np.array([[sd]]), best)[0]
    assert (at_rates[rates <= best] == 0).all()
    assert at_rates.max() <= capacity + 1e-8, "events beyond NEGLIGIBLE_SDS are not counted"


def test_probability_of_holding_a_rate_is_the_share_of_higher_capacities() -> None:
    drawn = np.exp(np.random.default_rng(0).normal([[2.0], [2.4]], 0.1, (2, 200_000))).ravel()
    improvement = improvement_at_rates(np.array([[2.0], [2.4]]), np.array([0.1]), 8.0, np.array([9.0]))[0, 0]
    assert improvement == pytest.approx((drawn >= 9.0).mean() / 8, rel=0.02)


def threshold_qps(qps: list[list[float]], sd: float = 0.05) -> float:
    """Return the early-stop threshold of the first configuration; `qps` has one row a sample."""
    rates = np.array(qps)
    return early_stop_threshold_qps(np.log(rates[:, 0]), np.full(len(rates), sd), rates[:, 1:])


def test_threshold_is_a_share_of_the_best_alternative() -> None:
    assert threshold_qps([[10.0, 9.9]]) == pytest.approx(EARLY_STOP_FRAC * 9.9, rel=0.01)
    assert threshold_qps([[10.0, 20.0]]) > 10.0 * 1.1, "at every rate"
    assert threshold_qps([[10.0, 5.0]]) == 0.0, "at no rate"
    assert threshold_qps([[10.0]]) == 0.0, "there is no alternative"


def test_threshold_accounts_for_what_the_rate_says_of_alternatives() -> None:
    """The alternative's mean is 16 over both samples, and 8 on the sample where this configuration has 10."""
    assert threshold_qps([[20.0, 24.0]], sd=0.15) > 16.0
    assert threshold_qps([[20.0, 24.0], [10.0, 8.0]], sd=0.15) == pytest.approx(
        EARLY_STOP_FRAC * 8.0, rel=0.05
    )


@given(
    qps=st.lists(st.tuples(st.floats(2.0, 30.0), st.floats(2.0, 30.0)), min_size=1, max_size=5),
    sd=st.floats(0.02, 0.2),
    factor=st.floats(1.0, 2.0),
)
def test_better_alternatives_never_lower_the_threshold(
    qps: list[tuple[float, float]], sd: float, factor: float
) -> None:
    lower, higher = (
        threshold_qps([[own, scale * other] for own, other in qps], sd) for scale in (1.0, factor)
    )
    assert lower <= higher
    assert lower <= EARLY_STOP_FRAC * max(other for _, other in qps)
