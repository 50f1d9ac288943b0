"""Hold the predictions and suggestions of the surrogate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tune.core.arrays import BoolArray, FloatArray
from tune.surrogate.prior import ParameterSamples


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the predicted capacity of every configuration, one row per posterior sample of equal weight.

    All arrays have the shape (samples, configurations), logs are of queries/s. `log_simulated` is that
    of the simulator; `log_mean` and `sd` include the discrepancy. `log_pool_capacity` (2, samples,
    configurations) is that of each pool with the discrepancy, prefill first. `is_predicted` (configurations,)
    marks those that were predicted; the capacity of the others counts as next to nothing. `noise_sd`
    (samples,) is the standard deviation of the noise of a measurement.
    """

    samples: ParameterSamples
    log_simulated: FloatArray
    log_pool_capacity: FloatArray
    log_mean: FloatArray
    sd: FloatArray
    is_predicted: BoolArray
    noise_sd: FloatArray

    @cached_property
    def capacity_qps(self) -> FloatArray:
        """Return the mean capacity for each sample, shape (samples, configurations)."""
        mean: FloatArray = np.exp(self.log_mean + self.sd**2 / 2)
        return mean

    @cached_property
    def expected_capacity_qps(self) -> FloatArray:
        """Return the posterior mean capacity, shape (configurations,)."""
        mean: FloatArray = self.capacity_qps.mean(0)
        return mean


@dataclass(frozen=True, eq=False)
class SelectedCandidate:
    """Describe the next deployment: configuration `index`, and the `prediction` from all that is observed.

    `expected_improvement_frac` is the expected improvement of the best rate, as a share of it. `qps` is the
    rate to measure at, None if the capacity is searched for. If the capacity falls below
    `early_stop_below_qps`, another configuration is predicted to be better, and it need not be measured
    exactly; 0 disables this.
    """

    index: int
    expected_improvement_frac: float
    prediction: Prediction
    qps: float | None = None
    early_stop_below_qps: float = 0.0
