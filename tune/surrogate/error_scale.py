"""Learn how much larger or smaller the errors of predictions are than predicted.

Every measured capacity is compared with what was predicted of it without that measurement. The variance of
these errors, in predicted standard deviations, has an inverse gamma prior around 1, so that few errors move
it little.

Source: Gelman et al., Bayesian Data Analysis, 3rd edition, 2013, section 2.6 (normal with unknown variance).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from tune.surrogate.observation import STATUS_SD, Observation
from tune.surrogate.prediction import Prediction

PRIOR_ERRORS = 5.0
"""Number of errors of the predicted size that the prior weighs. Chosen on the development racks and problems
of benchmarks/search_synthetic_racks.py and benchmarks/calibration_of_search.py, as are the next two."""

LARGEST_ERROR = 2.5
"""A larger error counts as this many standard deviations: it shows a limit of that configuration's own."""

SCALE_LIMITS = (0.7, 2.0)
"""Smallest and largest scale."""

_LEAST_PROBABILITY = 1e-9


def standardised_error(prediction: Prediction, observation: Observation) -> float | None:
    """Return the error of a capacity that was predicted without `observation`, in standard deviations.

    What is predicted is no normal distribution, so the error is that of a standard normal at the same
    quantile. None where the configuration was not predicted.
    """
    index = observation.index
    if index >= len(prediction.is_predicted) or not prediction.is_predicted[index]:
        return None
    variance = prediction.sd[:, index] ** 2 + prediction.noise_sd**2 + STATUS_SD[observation.status] ** 2
    deviation = np.log(max(observation.qps, 1e-3)) - prediction.log_mean[:, index]
    quantile = ndtr(deviation / np.sqrt(variance)).mean()
    return float(ndtri(np.clip(quantile, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)))


def scale_of(errors: Sequence[float]) -> float:
    """Return by what factor predicted standard deviations should be larger, given `errors` in these."""
    squares = np.minimum(np.square(errors), LARGEST_ERROR**2)
    variance = (PRIOR_ERRORS + squares.sum()) / (PRIOR_ERRORS + len(squares))
    return float(np.clip(np.sqrt(variance), *SCALE_LIMITS))
