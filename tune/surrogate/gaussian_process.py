"""What a search would think that knows nothing of serving: a Gaussian process on ln of the rate.

For where racks promise nothing more. Source: Rasmussen and Williams, Gaussian Processes for Machine Learning,
MIT Press 2006, algorithm 2.1 and section 5.4.1.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tune.core.arrays import FloatArray, IntArray
from tune.surrogate.acquisition import expected_improvement
from tune.surrogate.discrepancy import squared_distances

LENGTHSCALES = (0.2, 0.4, 0.7, 1.2)
"""Of the covariance, where each setting goes from 0 to 1: of these the most probable one. Our choice."""

NOISE, LEAST_SD = 0.03, 0.05
"""In ln: of what is told, which may be a forecast; and what rates differ by at least. Our choice."""


def gp_expected_improvement(
    features: FloatArray, which: IntArray, ln_qps: FloatArray, best_qps: float
) -> FloatArray:
    """Expected improvement over `best_qps`, as a share of it, of every configuration, (m,).

    `features` (m, settings) from 0 to 1; the configurations `which` (n,), two or more, came to `ln_qps` (n,),
    whose mean and standard deviation are taken for those of all.
    """
    mean, amplitude = float(ln_qps.mean()), float(ln_qps.std()) + LEAST_SD
    across = squared_distances(features, features[which])
    fits = [_fit(across, which, ln_qps - mean, amplitude, length) for length in LENGTHSCALES]
    _, off, sd = max(fits, key=lambda fit: fit[0])
    return expected_improvement((mean + off)[None], sd[None], best_qps)


def _fit(
    across: FloatArray, which: IntArray, off: FloatArray, amplitude: float, length: float
) -> tuple[float, FloatArray, FloatArray]:
    """ln of the marginal likelihood but for a constant; mean and standard deviation at all, (m,)."""
    covariance = amplitude**2 * np.exp(-across / (2 * length**2))
    factor = cho_factor(covariance[which] + NOISE**2 * np.eye(len(which)), lower=True)
    weights = cho_solve(factor, off)
    likelihood = -off @ weights / 2 - np.log(np.diag(factor[0])).sum()
    left = amplitude**2 - (covariance * cho_solve(factor, covariance.T).T).sum(1)
    return float(likelihood), covariance @ weights, np.sqrt(np.maximum(left, 1e-9))
