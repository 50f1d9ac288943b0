"""Compute credible intervals of what the surrogate predicts."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from tune.core.arrays import FloatArray
from tune.records.posterior_summary import Interval
from tune.surrogate.prediction import Prediction

_NORMAL_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
"""Sixteen equally probable values of a standard normal."""


def credible_interval(values: FloatArray) -> Interval:
    """Return median and central 90 % interval of equally probable `values` (n,)."""
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Interval(low=low, median=median, high=high)


def expected_capacity_qps(prediction: Prediction, index: int, error_scale: float = 1.0) -> Interval:
    """Return the credible interval of one configuration's measured capacity, queries/s.

    It includes the uncertainty of the parameters, that of the discrepancy, and the noise of a measurement.

    Parameters
    ----------
    prediction
        What is predicted of every configuration.
    index
        The configuration.
    error_scale
        Factor on all errors, see `SurrogateOptimizer.error_scale`.

    Returns
    -------
    Interval
    """
    steps = _NORMAL_QUANTILES[:, None] * np.hypot(prediction.sd[:, index], prediction.noise_sd)
    log_qps = (prediction.log_mean[:, index] + steps).ravel()
    middle = np.median(log_qps)
    return credible_interval(np.exp(middle + error_scale * (log_qps - middle)))
