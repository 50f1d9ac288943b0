"""Compute the expected improvement of a Gaussian process with no serving model.

The surrogate falls back to it when the simulator predicts no further improvement.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1 and
section 5.4.1 (marginal likelihood).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tune.core.arrays import FloatArray, IntArray
from tune.surrogate.acquisition import expected_improvement
from tune.surrogate.discrepancy import squared_distances

LENGTHSCALES = (0.2, 0.4, 0.7, 1.2)
"""Candidate length scales, for settings scaled to 0..1; the one of highest marginal likelihood is used.
Chosen here."""

NOISE_SD, MIN_AMPLITUDE_SD = 0.03, 0.05
"""Standard deviations in log rate: of the noise of an observation, which may be a forecast, and what is added
to the spread of the observed rates. Chosen here."""


def gp_expected_improvement(
    features: FloatArray, indices: IntArray, log_qps: FloatArray, best_qps: float
) -> FloatArray:
    """Return the expected improvement of every configuration over `best_qps`, as a share of it.

    Parameters
    ----------
    features
        Settings of all configurations, scaled to 0..1, shape (m, settings).
    indices
        Observed configurations, two or more, shape (n,).
    log_qps
        Log of their capacities, shape (n,); mean and spread of the process are taken from these.
    best_qps
        Rate to improve on, queries/s.

    Returns
    -------
    FloatArray
        Shape (m,).
    """
    mean, amplitude = float(log_qps.mean()), float(log_qps.std()) + MIN_AMPLITUDE_SD
    squares = squared_distances(features, features[indices])
    fits = [_fit(squares, indices, log_qps - mean, amplitude, scale) for scale in LENGTHSCALES]
    _, deviation, sd = max(fits, key=lambda fit: fit[0])
    return expected_improvement((mean + deviation)[None], sd[None], best_qps)


def _fit(
    squares: FloatArray, indices: IntArray, deviation: FloatArray, amplitude: float, lengthscale: float
) -> tuple[float, FloatArray, FloatArray]:
    """Return the log marginal likelihood up to a constant, and posterior mean and sd everywhere, (m,).

    `squares` (m, n) are squared distances to the observations `indices` (n,), `deviation` (n,) their distance
    from the prior mean.
    """
    covariance = amplitude**2 * np.exp(-squares / (2 * lengthscale**2))
    factor = cho_factor(covariance[indices] + NOISE_SD**2 * np.eye(len(indices)), lower=True)
    weights = cho_solve(factor, deviation)
    likelihood = -deviation @ weights / 2 - np.log(np.diag(factor[0])).sum()
    variance = amplitude**2 - (covariance * cho_solve(factor, covariance.T).T).sum(1)
    return float(likelihood), covariance @ weights, np.sqrt(np.maximum(variance, 1e-9))
