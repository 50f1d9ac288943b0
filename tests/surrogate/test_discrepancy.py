"""Test the discrepancy between simulator and measurement, and censored observations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import multivariate_normal

from tune.core.arrays import FloatArray
from tune.surrogate.discrepancy import (
    OUTLIER_CLIP,
    Correlation,
    Discrepancy,
    Observations,
    covariance,
)
from tune.surrogate.emulator import SOFT_MIN_SHARPNESS
from tune.surrogate.error_model import ErrorModel

FEATURES = np.linspace(0, 1, 9)[:, None]
UNKNOWN = ErrorModel(noise_sd=0.0)
"""Errors of a rack that nobody measured, whose measurements have no noise but what a test gives them."""


def observe(log_qps: list[float], low: float, high: float, *, capacity_only: bool) -> Observations:
    """Return one observation a rate, whose limits lie `low` and `high` away from it."""
    rates = np.array([log_qps, log_qps])
    count = len(log_qps)
    return Observations(
        np.arange(count),
        rates + low,
        rates + high,
        np.full((2, count), 0.05),
        np.full(count, capacity_only),
    )


@pytest.mark.parametrize("model", [UNKNOWN, ErrorModel(0.1, 0.005, 0.02)])
@pytest.mark.parametrize("share", [1.0, np.array([1.0, 0.4, 0.0])])
def test_whitened_residuals_give_the_multivariate_normal_density(
    model: ErrorModel, share: FloatArray | float
) -> None:
    indices, sd = np.array([0, 4, 7]), np.full(3, 0.01)
    observed = FEATURES[indices]
    discrepancy = Discrepancy(Correlation.between(observed, observed), sd, model, share)
    residual = np.array([[0.1, 0.1, -0.1], [0.0, 0.0, 0.0]])
    error = covariance(
        Correlation.between(observed, observed), model, share * np.broadcast_to(share, 3)[:, None]
    )
    normal = multivariate_normal(np.zeros(3), error + np.diag(sd**2 + model.noise_sd**2))
    log_density = -0.5 * (discrepancy.whitened(residual) ** 2).sum(1) - discrepancy.log_root_determinant
    assert log_density == pytest.approx(normal.logpdf(residual) + 1.5 * np.log(2 * np.pi))


@pytest.mark.parametrize("share", [1.0, np.linspace(0.2, 1, 9)])
def test_whitened_residuals_have_the_bits_of_scipys_solver(share: FloatArray | float) -> None:
    """Searches on record were made with it: another last bit may lead to another suggestion."""
    model, sd = ErrorModel(0.1, 0.005, 0.02), np.linspace(0.01, 0.05, 9)
    correlation = Correlation.between(FEATURES, FEATURES)
    shares = np.broadcast_to(share, 9)
    total = covariance(correlation, model, np.outer(shares, shares)) + np.diag(sd**2 + model.noise_sd**2)
    inverse = solve_triangular(cholesky(total, lower=True), np.eye(9), lower=True)
    residual = np.random.default_rng(0).normal(size=(5, 9))
    found = Discrepancy(correlation, sd, model, share).whitened(residual)
    assert (found == residual @ inverse.T).all()


def test_the_error_of_the_emulator_stays_where_the_rack_is_the_calibrated_one() -> None:
    wide, narrow, least = (np.sqrt(sum(ErrorModel(scale).variances)) for scale in (1.0, 0.1, 0.0))
    assert wide > 2 * narrow > 2 * least
    assert least == pytest.approx(np.sqrt(2) * ErrorModel().emulator_sd)


def test_a_smooth_error_that_does_not_reach_a_capacity_is_neither_learned_there_nor_predicted() -> None:
    far, between = np.array([[0.0], [1.0]]), np.array([[0.2]])
    sd, residual, places = np.full(2, 0.01), np.array([[0.1, -0.1]]), np.array([-1, -1])
    every, first = Correlation.between(far, far), Correlation.between(far[:1], far[:1])
    one_of_two = Discrepancy(every, sd, UNKNOWN, np.array([1.0, 0.0]))
    alone, both = Discrepancy(first, sd[:1], UNKNOWN), Discrepancy(every, sd, UNKNOWN)
    (learned,), learned_sd = one_of_two.predict(Correlation.between(between, far), residual, places)
    to_first = Correlation.between(between, far[:1])
    (expected,), expected_sd = alone.predict(to_first, residual[:, :1], places[:1])
    assert learned == pytest.approx(expected)
    assert learned_sd == pytest.approx(expected_sd)
    assert both.predict(Correlation.between(between, far), residual, places)[0].max() < 0.8 * expected
    (none,), short_sd = one_of_two.predict(Correlation.between(np.array([[0.5]]), far), residual, places, 0.0)
    assert none == pytest.approx(0, abs=0.001)
    assert short_sd == pytest.approx(UNKNOWN.variances[1] ** 0.5, rel=0.01)


def test_an_error_is_predicted_nearby_and_fades_with_distance() -> None:
    first = FEATURES[:1]
    discrepancy = Discrepancy(Correlation.between(first, first), np.array([0.01]), UNKNOWN)
    (mean,), sd = discrepancy.predict(Correlation.between(FEATURES, first), np.array([[0.1]]), np.array([0]))
    assert mean[0] == pytest.approx(0.1, rel=0.05)
    assert (np.diff(mean) < 0).all()
    assert (np.diff(sd) > 0).all()
    assert sd.max() < np.sqrt(sum(UNKNOWN.variances))


def test_an_outlier_stays_at_its_own_configuration() -> None:
    two = FEATURES[[0, 4]]
    discrepancy = Discrepancy(Correlation.between(two, two), np.array([0.01, 0.01]), UNKNOWN)
    residual = np.array([[-OUTLIER_CLIP, 0.05], [-5.0, 0.05]])
    (clipped, outlier), _ = discrepancy.predict(
        Correlation.between(FEATURES, two), residual, np.array([0, 4])
    )
    assert outlier[0] == pytest.approx(-5.0, abs=0.1)
    assert (outlier[1:] == clipped[1:]).all()
    (clipped, outlier), _ = discrepancy.predict(
        Correlation.between(FEATURES[1:], two), residual, np.array([-1, 3])
    )
    assert (outlier == clipped).all()


def test_a_capacity_is_that_of_the_lower_pool() -> None:
    """Samples predict 2.3 and 2.5, 2.5 and 2.3, 1.5 and 1.7, where 2.0 was measured: (2, 3, 1)."""
    predicted = np.array([[2.3, 2.5, 1.5], [2.5, 2.3, 1.7]])[..., None]
    observations = observe([2.0], 0.0, 0.0, capacity_only=True)
    residual = observations.residual(predicted)[..., 0]
    assert residual[0] == pytest.approx([-0.3, 0, 0.5], abs=0.01)
    assert residual[1] == pytest.approx([0, -0.3, 0.3], abs=0.01)


def test_equal_pools_agree_with_a_capacity_below_both() -> None:
    observations = observe([2.0 - np.log(2) / SOFT_MIN_SHARPNESS], 0.0, 0.0, capacity_only=True)
    assert observations.residual(np.full((2, 1, 1), 2.0)).ravel() == pytest.approx([0, 0])


def test_a_capacity_informs_about_the_pool_that_limits_most_samples() -> None:
    observations = observe([2.0], 0.0, 0.0, capacity_only=True)
    prefill = np.array([1.8, 1.9, 2.1, 2.2, 2.6])
    decode = np.array([2.5, 2.5, 2.5, 2.5, 2.2])
    residual = observations.residual(np.stack([prefill, decode])[..., None])
    assert np.median(np.where(np.abs(residual) < 0.01, 0, residual), axis=1).ravel().tolist() == [0, 0]
    assert observations.is_informative(residual).ravel().tolist() == [True, False]


def test_two_pool_capacities_constrain_both_pools() -> None:
    observations = observe([2.0], 0.0, 0.0, capacity_only=False)
    residual = observations.residual(np.array([[2.3], [2.5]])[..., None])
    assert residual[..., 0, 0] == pytest.approx([-0.3, -0.5])
    assert observations.is_informative(residual).all()


def test_an_upper_limit_does_not_inform_samples_that_agree() -> None:
    observations = observe([2.0], -np.inf, 0.0, capacity_only=True)
    predicted = np.array([[1.5, 2.0, 2.3], [2.6, 2.6, 2.6]])[..., None]
    residual = observations.residual(predicted)
    assert residual[0].ravel() == pytest.approx([0, 0, -0.3], abs=0.01)
    assert (residual[1] == 0).all()
    assert not observations.is_informative(residual).any()
    assert observations.is_informative(residual[:, 2:]).ravel().tolist() == [True, False]


def test_a_rate_that_held_limits_both_pools_from_below() -> None:
    observations = observe([2.0], 0.0, np.inf, capacity_only=True)
    residual = observations.residual(np.array([[1.8], [2.4]])[..., None])
    assert residual.ravel() == pytest.approx([0.2, 0], abs=0.01)
