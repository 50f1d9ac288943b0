"""Model the discrepancy between simulator and measurement as a Gaussian process over the settings.

The simulator is wrong even with the right parameters. Its error in log capacity is smooth over configurations
(Kennedy and O'Hagan, J. R. Stat. Soc. B 63, 2001) and has a prior covariance that is the sum of a long and a
short squared exponential. Measurements that only give a lower or an upper limit enter as censored ones.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import LinAlgError, cholesky
from scipy.linalg.lapack import dtrtrs

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.surrogate.emulator import log_soft_min_correction
from tune.surrogate.error_model import ErrorModel

LENGTHSCALE = 0.8
"""Length scale of the smooth error; every setting of a sweep is scaled to 0..1. Chosen here."""

SHORT_LENGTHSCALE = 0.15
"""Length scale of the error that changes from one configuration to the next. Chosen here."""

FORECAST_SD = 0.035
"""Standard deviation, beyond the noise of a measurement, of the error of a log capacity that was only
forecast: two thirds of all forecasts are off by less than 3.5 %, one is off by 32 %
(benchmarks/probe_costs.py)."""

CENSORED_SD = 0.045
"""Standard deviation, beyond the noise of a measurement, of a censored log capacity, of which one limit is
known. Chosen here."""

CENSORING_RATIO = 2.5
"""A pool capacity above this multiple of the measured capacity is right-censored: only the multiple is taken
as a lower limit. Chosen here."""

UNINFORMATIVE_SD = 0.15
"""Standard deviation given to a censored log capacity that lies on the right side of its limit. Chosen
here."""

OUTLIER_CLIP = 0.6
"""Residuals are clipped at this log ratio before they inform other configurations; a larger one indicates a
limit specific to that configuration. Chosen on the development racks of
benchmarks/search_synthetic_racks.py."""

EXCESS_SD_FRAC = 0.3
"""Standard deviation of a pool capacity above the measured capacity, as a fraction of the log excess. Chosen
here."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Hold the observed log pool capacities of n deployments.

    `indices` (n,) are their configurations. The log capacity of each pool, prefill first, lies between `low`
    and `high` (2, n); the two are equal where it was measured, infinite where it is censored. `sd` (2, n) is
    the standard deviation of what adds to the noise of a measurement. Where `capacity_only` (n,) is True, the
    pools were not measured: `low` and `high` then limit the capacity of the deployment. Its upper limit
    constrains only the lower of the two pools, and both limits are raised by the soft-minimum correction.
    """

    indices: IntArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray
    capacity_only: BoolArray

    def __len__(self) -> int:
        return len(self.indices)

    def residual(self, log_pool_capacity: FloatArray) -> FloatArray:
        """Return how far predictions must move to agree with the observations, shape (2, samples, n).

        `log_pool_capacity` (2, samples, n) is what each parameter sample predicts.
        """
        low, high = self.low[:, None], self.high[:, None]
        if self.capacity_only.any():
            correction = np.where(self.capacity_only, log_soft_min_correction(log_pool_capacity), 0.0)
            higher_pool = self.capacity_only & (log_pool_capacity > log_pool_capacity.min(0))
            low, high = low + correction, np.where(higher_pool, np.inf, high + correction)
        residual: FloatArray = np.clip(log_pool_capacity, low, high) - log_pool_capacity
        return residual

    def is_informative(self, residual: FloatArray) -> BoolArray:
        """Return which observations contradict most samples or measure a pool, shape (2, n).

        `residual` (2, samples, n) is as `Observations.residual` returns it. A measured capacity is
        informative about the pool that limits it on more of the samples.
        """
        share = (residual != 0).mean(1)
        exact = self.low == self.high
        informative: BoolArray = (share > 0.5) | (exact & (~self.capacity_only | (share == share.max(0))))
        return informative


@dataclass(frozen=True, eq=False)
class Correlation:
    """Hold the correlation of the smooth and of the short error between settings, (n, m) each.

    It is the same in every error model, so it is computed once for all of them.
    """

    smooth: FloatArray
    short: FloatArray

    @staticmethod
    def between(a: FloatArray, b: FloatArray) -> Correlation:
        """Return the correlation between settings `a` (n, settings) and `b` (m, settings)."""
        halves = squared_distances(a, b) / 2
        return Correlation(np.exp(-halves / LENGTHSCALE**2), np.exp(-halves / SHORT_LENGTHSCALE**2))


class Discrepancy:
    """Condition the discrepancy of one pool on residuals at observed configurations."""

    def __init__(
        self, observed: Correlation, sd: FloatArray, model: ErrorModel, share: FloatArray | float = 1.0
    ) -> None:
        """Factorise the covariance of n observed configurations.

        `observed` (n, n) is the correlation between them, and `sd` (n,) is the standard deviation of what
        adds to the noise of `model`. `share` (n,) is the share of the smooth error that reaches each observed
        capacity.
        """
        self._model = model
        self._share = np.broadcast_to(share, len(sd))
        total = covariance(observed, model, _products(self._share, self._share))
        total[np.diag_indices_from(total)] += sd**2 + model.noise_sd**2
        self._lower: FloatArray = cholesky(total, lower=True, overwrite_a=True)
        self.log_root_determinant = float(np.log(np.diag(self._lower)).sum())

    @cached_property
    def _whitening(self) -> FloatArray:
        """Return the inverse of the factor, which not every error model is asked for, shape (n, n)."""
        if not len(self._lower):
            return self._lower
        inverse: FloatArray
        inverse, failed = dtrtrs(self._lower, np.eye(len(self._lower), order="F"), lower=1, overwrite_b=1)
        if failed:
            raise LinAlgError(f"LAPACK's dtrtrs ended with {failed}")
        return inverse

    def whitened(self, residual: FloatArray) -> FloatArray:
        """Return `residual` (samples, n) in independent standard deviations of error plus noise."""
        whitened: FloatArray = residual @ self._whitening.T
        return whitened

    def predict(
        self,
        to_observed: Correlation,
        residual: FloatArray,
        places: IntArray,
        share: FloatArray | float = 1.0,
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean (samples, m) and standard deviation (m,) of the error at other configurations.

        Parameters
        ----------
        to_observed
            Their correlation with the observed ones, shape (m, n).
        residual
            Residuals of the observations, shape (samples, n). They are clipped at OUTLIER_CLIP; the excess is
            added at the own configuration only.
        places
            Where each observed configuration stands among them, shape (n,); -1 for those that do not.
        share
            Share of the smooth error that reaches each capacity, shape (m,).

        Returns
        -------
        tuple[FloatArray, FloatArray]
        """
        reached = np.broadcast_to(share, len(to_observed.smooth))
        cross = covariance(to_observed, self._model, _products(reached, self._share))
        weights = cross @ self._whitening.T @ self._whitening
        clipped = np.clip(residual, -OUTLIER_CLIP, OUTLIER_CLIP)
        mean: FloatArray = clipped @ weights.T
        excess = residual - clipped
        for column in np.flatnonzero(excess.any(0) & (places >= 0)).tolist():
            mean[:, places[column]] += excess[:, column]
        smooth, short = self._model.variances
        variance = reached**2 * smooth + short - (weights * cross).sum(1)
        return mean, np.sqrt(np.maximum(variance, 1e-6))


def covariance(correlation: Correlation, model: ErrorModel, shares: FloatArray | float = 1.0) -> FloatArray:
    """Return the prior covariance of the error, shape (n, m).

    `shares` (n, m) is the product of the shares of the smooth error that reach both configurations.
    """
    smooth, short = model.variances
    result: FloatArray = shares * smooth * correlation.smooth
    result += short * correlation.short
    return result


def _products(share: FloatArray, other: FloatArray) -> FloatArray | float:
    """Return the products of the shares (n,) and (m,), shape (n, m); 1 where the whole error reaches all."""
    return 1.0 if (share == 1).all() and (other == 1).all() else np.outer(share, other)


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the squared distances between `a` (n, settings) and `b` (m, settings), shape (n, m)."""
    squares: FloatArray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squares, 0)
