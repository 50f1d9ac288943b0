"""What the simulator gets wrong even on the right rack: an error smooth over configurations, and noise.

A Gaussian process over the settings, whose covariance is the sum of a long and a short squared exponential.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.surrogate.emulator import log_soft_min_correction

AMPLITUDE = 0.1
"""Standard deviation of the error, in ln of what a pool can do. Our choice."""

LENGTHSCALE = 0.8
"""Of the covariance, where each setting of a sweep goes from 0 to 1. Our choice."""

ROUGH, ROUGH_LENGTH = 0.05, 0.15
"""The same of a second error, which differs from one configuration to the next: the emulator's, for one."""

NUGGET = 0.02
"""Standard deviation of the noise of a measurement."""

FORECAST_SD = 0.04
"""The same where a boundary was only forecast: two thirds are off by less than 3.5 %, one by 32 %
(benchmarks/probe_costs.py)."""

CENSORED_SD = 0.05
"""The same of a deployment of which one bound is known. Our choice."""

CENSORING_RATIO = 2.5
"""Of a bound more than so many times the boundary only that is taken for known. Our choice."""

UNINFORMATIVE_SD = 0.15
"""Of a bound of which nothing is known but that it lies on the right side of what was asked. Our choice."""

OUTLIER_CLIP = 0.6
"""What is off by more, in ln, has met a limit that others need not meet: of them it tells no more than this.
Our choice, by the development racks of benchmarks/search_synthetic_racks.py."""

BEYOND_SD_FRAC = 0.3
"""A bound above the boundary is known to this share of how far above, in ln. Our choice."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Deployments `which` (n,) of the configurations, and what they showed of ln of each pool's bound.

    The bounds of prefill and decode lie between `low` and `high` (2, n), both the same where that was
    measured; `sd` (2, n) of it. Where `lowest` (n,) they are those of the boundary: the upper end is one for
    the lower bound of the two, and both ends lie as far higher as a boundary lies below two close bounds.
    """

    which: IntArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray
    lowest: BoolArray

    def __len__(self) -> int:
        return len(self.which)

    def residual(self, log_pool_capacity: FloatArray) -> FloatArray:
        """What of the measurements racks that say `log_pool_capacity` (2, racks, n) do not explain, as shaped."""
        low, high = self.low[:, None], self.high[:, None]
        if self.lowest.any():
            lower = np.where(self.lowest, log_soft_min_correction(log_pool_capacity), 0.0)
            other = self.lowest & (log_pool_capacity > log_pool_capacity.min(0))
            low, high = low + lower, np.where(other, np.inf, high + lower)
        found: FloatArray = np.clip(log_pool_capacity, low, high) - log_pool_capacity
        return found

    def tells(self, residual: FloatArray) -> BoolArray:
        """Of `residual` (2, racks, n), which measurements say of a pool what most racks do not: (2, n). A
        boundary tells of one pool at least: the one that binds on more of the racks."""
        share = (residual != 0).mean(1)
        exact = self.low == self.high
        found: BoolArray = (share > 0.5) | (exact & (~self.lowest | (share == share.max(0))))
        return found


class Discrepancy:
    """The error at configurations whose settings are `features` (m, settings), after it was measured at those
    `which` (n,), with a standard deviation of `sd` (n,)."""

    def __init__(self, features: FloatArray, which: IntArray, sd: FloatArray) -> None:
        at = features[which]
        self._features, self._which, self._at = features, which, at
        lower = cholesky(covariance(at, at) + np.diag(sd**2), lower=True)
        self._white: FloatArray = solve_triangular(lower, np.eye(len(at)), lower=True)

    @cached_property
    def _across(self) -> FloatArray:
        return covariance(self._features, self._at)

    @cached_property
    def _weights(self) -> FloatArray:
        found: FloatArray = self._across @ self._white.T @ self._white
        return found

    @cached_property
    def sd(self) -> FloatArray:
        """Standard deviation of the error at every configuration, (m,)."""
        left = AMPLITUDE**2 + ROUGH**2 - (self._weights * self._across).sum(1)
        found: FloatArray = np.sqrt(np.maximum(left, 1e-6))
        return found

    def whitened(self, residual: FloatArray) -> FloatArray:
        """`residual` (racks, n) as independent standard deviations of error and noise together: the same."""
        found: FloatArray = residual @ self._white.T
        return found

    def mean(self, residual: FloatArray) -> FloatArray:
        """Expected error of ln of the bound at every configuration on each rack: (racks, m)."""
        telling = np.clip(residual, -OUTLIER_CLIP, OUTLIER_CLIP)
        found: FloatArray = telling @ self._weights.T
        beyond = residual - telling
        for one in np.flatnonzero(beyond.any(0)).tolist():
            found[:, self._which[one]] += beyond[:, one]
        return found


def covariance(a: FloatArray, b: FloatArray) -> FloatArray:
    """Covariance of the error between settings `a` (n, settings) and `b` (m, settings): (n, m)."""
    halves = squared_distances(a, b) / 2
    found: FloatArray = AMPLITUDE**2 * np.exp(-halves / LENGTHSCALE**2)
    found += ROUGH**2 * np.exp(-halves / ROUGH_LENGTH**2)
    return found


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Of the distances between `a` (n, settings) and `b` (m, settings): (n, m)."""
    found: FloatArray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(found, 0)
