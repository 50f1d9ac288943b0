"""What the simulator gets wrong even on the right rack: an error smooth over configurations, and noise.

A Gaussian process over the settings, whose covariance is the sum of a long and a short squared exponential.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from tune.results.requests import BoolArray, FloatArray, IntArray

AMPLITUDE = 0.1
"""Standard deviation of the error, in ln of the boundary. Our choice."""

LENGTH = 0.8
"""Of the covariance, where each setting of a sweep goes from 0 to 1. Our choice."""

ROUGH, ROUGH_LENGTH = 0.05, 0.15
"""The same of a second error, which differs from one configuration to the next: the emulator's, for one."""

NUGGET = 0.02
"""Standard deviation of the noise of a measurement."""

FORECAST_SD = 0.025
"""The same where a boundary was only forecast, to 1.5 % (benchmarks/probe_costs.py)."""

CENSORED_SD = 0.05
"""The same of a deployment of which one bound is known. Our choice."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Deployments `which` (n,) of the configurations, and what they showed of ln of the boundary.

    It lies between `low` and `high` (n,), both the same where it was measured; `sd` (n,) of that.
    """

    which: IntArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray

    def __len__(self) -> int:
        return len(self.which)

    def only(self, which: BoolArray) -> Measured:
        return Measured(self.which[which], self.low[which], self.high[which], self.sd[which])

    def residual(self, ln_boundary: FloatArray) -> FloatArray:
        """What of the measurements racks that say `ln_boundary` (racks, n) do not explain, shape the same."""
        return np.clip(ln_boundary, self.low, self.high) - ln_boundary


class Discrepancy:
    """The error at configurations whose settings are `features` (m, settings), after `measured`."""

    def __init__(self, features: FloatArray, measured: Measured) -> None:
        self._features = features
        at = features[measured.which]
        self._at = at
        covariance = kernel(at, at) + np.diag(measured.sd**2)
        self._precision = cho_solve((cholesky(covariance, lower=True), True), np.eye(len(at)))
        across = kernel(features, at)
        self._weights = across @ self._precision
        left = AMPLITUDE**2 + ROUGH**2 - (self._weights * across).sum(1)
        self.sd: FloatArray = np.sqrt(np.maximum(left, 1e-6))

    def ln_likelihood(self, residual: FloatArray) -> FloatArray:
        """Of each rack, (racks,), but for a constant; `residual` (racks, n)."""
        found: FloatArray = -0.5 * ((residual @ self._precision) * residual).sum(1)
        return found

    def mean(self, residual: FloatArray) -> FloatArray:
        """Expected error of ln boundary at every configuration on each rack: (racks, m)."""
        found: FloatArray = residual @ self._weights.T
        return found


def kernel(a: FloatArray, b: FloatArray) -> FloatArray:
    """Covariance of the error between settings `a` (n, settings) and `b` (m, settings): (n, m)."""
    halves = squares(a, b) / 2
    found: FloatArray = AMPLITUDE**2 * np.exp(-halves / LENGTH**2)
    found += ROUGH**2 * np.exp(-halves / ROUGH_LENGTH**2)
    return found


def squares(a: FloatArray, b: FloatArray) -> FloatArray:
    """Of the distances between `a` (n, settings) and `b` (m, settings): (n, m)."""
    found: FloatArray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(found, 0)
