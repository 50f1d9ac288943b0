"""Test expected improvement under a Gaussian process with no serving model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from tune.core.arrays import FloatArray
from tune.surrogate.gaussian_process import LENGTHSCALES, MIN_AMPLITUDE_SD, NOISE_SD, gp_expected_improvement

GRID = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(-1, 2)


def log_rates(points: FloatArray) -> FloatArray:
    """Return the height of a hill, highest at (0.75, 0.25)."""
    height: FloatArray = 2.5 - 3 * ((points - [0.75, 0.25]) ** 2).sum(1)
    return height


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 12))
def test_it_equals_expected_improvement_of_the_conditional_normal(seed: int, count: int) -> None:
    """Compare with scipy's densities and the formula of Jones, Schonlau and Welch for a lognormal rate."""
    draws = np.random.default_rng(seed)
    indices = draws.choice(len(GRID), count, replace=False)
    log_qps = log_rates(GRID[indices]) + draws.normal(0, 0.02, count)
    best_qps = float(np.exp(log_qps.max()))
    mean, amplitude = log_qps.mean(), log_qps.std() + MIN_AMPLITUDE_SD

    def covariance(lengthscale: float) -> FloatArray:
        squares = ((GRID[:, None] - GRID) ** 2).sum(-1)
        result: FloatArray = amplitude**2 * np.exp(-squares / (2 * lengthscale**2))
        return result

    def likelihood(lengthscale: float) -> float:
        observed = covariance(lengthscale)[np.ix_(indices, indices)] + NOISE_SD**2 * np.eye(count)
        return float(multivariate_normal(np.full(count, mean), observed).logpdf(log_qps))

    prior = covariance(max(LENGTHSCALES, key=likelihood))
    weights = prior[:, indices] @ np.linalg.inv(prior[np.ix_(indices, indices)] + NOISE_SD**2 * np.eye(count))
    expected = mean + weights @ (log_qps - mean)
    sd = np.sqrt(np.maximum(amplitude**2 - (weights * prior[:, indices]).sum(1), 1e-9))
    excess = (expected - np.log(best_qps)) / sd
    improvement = np.exp(expected - np.log(best_qps) + sd**2 / 2) * norm.cdf(excess + sd) - norm.cdf(excess)
    assert gp_expected_improvement(GRID, indices, log_qps, best_qps) == pytest.approx(improvement, abs=1e-6)


def test_it_climbs_a_hill() -> None:
    indices = [0, 8, 72]
    while len(indices) < 12:
        log_qps = log_rates(GRID[indices])
        improvement = gp_expected_improvement(GRID, np.array(indices), log_qps, float(np.exp(log_qps.max())))
        improvement[indices] = 0
        indices.append(int(improvement.argmax()))
    assert log_rates(GRID[indices]).max() == log_rates(GRID).max()
