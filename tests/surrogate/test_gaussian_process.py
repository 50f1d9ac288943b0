"""A Gaussian process that knows nothing of serving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from tune.core.arrays import FloatArray
from tune.surrogate.gaussian_process import LEAST_SD, LENGTHSCALES, NOISE, gp_expected_improvement

GRID = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(-1, 2)


def ln_rates(at: FloatArray) -> FloatArray:
    """A hill, highest at (0.75, 0.25)."""
    found: FloatArray = 2.5 - 3 * ((at - [0.75, 0.25]) ** 2).sum(1)
    return found


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 12))
def test_it_is_expected_improvement_of_the_conditional_normal(seed: int, count: int) -> None:
    """By densities of scipy's and by the formula of Jones, Schonlau and Welch, on a rate's lognormal."""
    draws = np.random.default_rng(seed)
    which = draws.choice(len(GRID), count, replace=False)
    ln_qps = ln_rates(GRID[which]) + draws.normal(0, 0.02, count)
    best_qps = float(np.exp(ln_qps.max()))
    mean, amplitude = ln_qps.mean(), ln_qps.std() + LEAST_SD

    def covariance(length: float) -> FloatArray:
        apart = ((GRID[:, None] - GRID) ** 2).sum(-1)
        found: FloatArray = amplitude**2 * np.exp(-apart / (2 * length**2))
        return found

    def likelihood(length: float) -> float:
        of_told = covariance(length)[np.ix_(which, which)] + NOISE**2 * np.eye(count)
        return float(multivariate_normal(np.full(count, mean), of_told).logpdf(ln_qps))

    of_all = covariance(max(LENGTHSCALES, key=likelihood))
    gain = of_all[:, which] @ np.linalg.inv(of_all[np.ix_(which, which)] + NOISE**2 * np.eye(count))
    expected = mean + gain @ (ln_qps - mean)
    sd = np.sqrt(np.maximum(amplitude**2 - (gain * of_all[:, which]).sum(1), 1e-9))
    above = (expected - np.log(best_qps)) / sd
    wanted = np.exp(expected - np.log(best_qps) + sd**2 / 2) * norm.cdf(above + sd) - norm.cdf(above)
    assert gp_expected_improvement(GRID, which, ln_qps, best_qps) == pytest.approx(wanted, abs=1e-6)


def test_it_climbs_a_hill() -> None:
    which = [0, 8, 72]
    while len(which) < 12:
        ln_qps = ln_rates(GRID[which])
        gain = gp_expected_improvement(GRID, np.array(which), ln_qps, float(np.exp(ln_qps.max())))
        gain[which] = 0
        which.append(int(gain.argmax()))
    assert ln_rates(GRID[which]).max() == ln_rates(GRID).max()
