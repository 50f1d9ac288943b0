"""Compute the prediction of some configurations at a time, from one set of posterior samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.surrogate.acquisition import min_of_normals
from tune.surrogate.discrepancy import Correlation, Discrepancy, Observations
from tune.surrogate.emulator import CAPACITY_FLOOR_QPS, Emulator, log_capacity, log_soft_min_correction
from tune.surrogate.prediction import Prediction
from tune.surrogate.prior import ParameterPrior, ParameterSamples

APPROXIMATION_SD = 0.03
"""Standard deviation of the error in a log prefill capacity whose pool is not simulated. Chosen here."""

_EMPTY_SD = 1e-4
"""Standard deviation of what is not predicted."""


class PredictionTable:
    """Hold the predictions of configurations so far, given posterior samples and what was observed."""

    def __init__(
        self,
        emulator: Emulator,
        prior: ParameterPrior,
        pool_features: Sequence[FloatArray],
        samples: ParameterSamples,
        observed: Observations,
    ) -> None:
        """Prepare the discrepancies; nothing is predicted yet.

        `pool_features` holds the settings of all configurations that matter to prefill, and those that matter
        to decode, each (m, settings).
        """
        self._emulator, self._features, self._samples = emulator, pool_features, samples
        self._observed = observed
        self._unique, self._inverse = samples.unique()
        self._models, self._model_of = prior.error_models, prior.error_model_of(self._unique)
        predicted = emulator.log_pool_capacity(self._unique, observed.indices)
        self._residual = observed.residual(predicted)
        self._observed_shares = self._shares(predicted, observed.indices)
        self._informative = observed.is_informative(self._residual[:, self._inverse])
        self._errors = self._discrepancies()
        self._columns: dict[str, FloatArray] = {}
        self.is_predicted = np.zeros(0, bool)

    def _shares(self, log_pool_capacity: FloatArray, indices: IntArray) -> FloatArray:
        """Return the share of each pool's smooth error that reaches the capacity of `indices`, shape (2, m).

        That of decode workers does not reach it on samples where the frontend is the limit.
        """
        limited = self._emulator.engine_limited(self._unique, log_pool_capacity, indices)
        return np.stack([np.ones(len(indices)), limited[self._inverse].mean(0)])

    def _discrepancies(self) -> Mapping[int, Sequence[Discrepancy]]:
        """Return the discrepancy of both pools by the number of each error model among the samples."""
        observed = [self._observed_settings(pool) for pool in range(len(self._features))]
        between = [Correlation.between(settings, settings) for settings in observed]
        return {
            number: [
                Discrepancy(correlation, sd[exact], self._models[number], share[exact])
                for correlation, sd, exact, share in zip(
                    between, self._observed.sd, self._informative, self._observed_shares, strict=True
                )
            ]
            for number in np.unique(self._model_of).tolist()
        }

    def _observed_settings(self, pool: int) -> FloatArray:
        """Return the settings of the configurations that show something of a pool, shape (n, settings)."""
        settings: FloatArray = self._features[pool][self._observed.indices[self._informative[pool]]]
        return settings

    def predict(self, indices: IntArray) -> None:
        """Predict the configurations `indices` (m,), again where they were predicted before."""
        pools = self._emulator.log_pool_capacity(self._unique, indices)
        simulated, shares = log_capacity(pools), self._shares(pools, indices)
        approximate = ~self._emulator.is_simulated(indices)
        log_mean, sd = np.empty(pools.shape[1:]), np.empty(pools.shape[1:])
        to_observed = [
            Correlation.between(features[indices], self._observed_settings(pool))
            for pool, features in enumerate(self._features)
        ]
        places = [_places(self._observed.indices[exact], indices) for exact in self._informative]
        for number, errors in self._errors.items():
            rows = self._model_of == number
            pool_sd = np.empty((2, len(indices)))
            for pool, error in enumerate(errors):
                residual = self._residual[pool][rows][:, self._informative[pool]]
                mean, pool_sd[pool] = error.predict(to_observed[pool], residual, places[pool], shares[pool])
                pools[pool, rows] += mean
            pool_sd[0] = np.hypot(pool_sd[0], APPROXIMATION_SD * approximate)
            log_mean[rows], sd[rows] = min_of_normals(pools[:, rows], pool_sd)
        log_mean -= log_soft_min_correction(pools)
        self._store(
            indices,
            {"simulated": simulated, "pools": pools, "mean": log_mean, "sd": sd},
        )

    def prediction(self) -> Prediction:
        """Return the prediction so far; the capacity of other configurations counts as CAPACITY_FLOOR_QPS."""
        columns = self._columns
        return Prediction(
            self._samples,
            columns["simulated"],
            columns["pools"],
            columns["mean"],
            columns["sd"],
            self.is_predicted.copy(),
            np.array([self._models[number].noise_sd for number in self._model_of])[self._inverse],
        )

    def _store(self, indices: IntArray, values: Mapping[str, FloatArray]) -> None:
        """Keep the columns `values` (..., unique samples, m) of `indices`, with a row for every sample.

        The arrays are new: a prediction so far keeps its own.
        """
        samples, count = len(self._inverse), len(self._features[0])
        self.is_predicted = np.append(self.is_predicted, np.zeros(count - len(self.is_predicted), bool))
        self.is_predicted[indices] = True
        for name, value in values.items():
            known = self._columns.get(name, np.zeros((samples, 0)))
            fill = _EMPTY_SD if name == "sd" else np.log(CAPACITY_FLOOR_QPS)
            column = np.full((*value.shape[:-2], samples, count), fill)
            column[..., : known.shape[-1]] = known
            column[..., indices] = value[..., self._inverse, :]
            self._columns[name] = column


def _places(observed: IntArray, indices: IntArray) -> IntArray:
    """Return where each of `observed` (n,) stands in `indices` (m,), shape (n,); -1 where it does not."""
    place = {index: place for place, index in enumerate(indices.tolist())}
    return np.array([place.get(index, -1) for index in observed.tolist()], int)
