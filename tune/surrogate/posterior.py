"""Draw from the posterior of the simulator's parameters by importance sampling in two stages.

Prior samples are weighted by their likelihood; resampled ones start the climbs whose maxima make the proposal
(a mixture of Laplace approximations), and samples of the proposal are weighted again. Weights are tempered,
raised to a power below 1, so that their effective number (Kong 1992) never falls below a share of the draws.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.surrogate.discrepancy import UNINFORMATIVE_SD, Correlation, Discrepancy, Observations
from tune.surrogate.emulator import Emulator
from tune.surrogate.laplace import LaplaceMixture
from tune.surrogate.prior import ParameterPrior, ParameterSamples

PRIOR_DRAWS, LAPLACE_STARTS, PROPOSAL_DRAWS = 4000, 32, 800
"""Number of prior samples, of starts and of proposal samples. Chosen here by what a suggestion may cost."""

TEMPERING_BISECTIONS = 12
"""Bisection steps of the search for the tempering power. Chosen here by what a suggestion may cost."""

MIN_EFFECTIVE_FRAC = 0.05
"""Smallest effective number of samples, as a share of the draws. Chosen here."""

MAX_PRIOR_EVALUATIONS, MAX_START_EVALUATIONS, MAX_PROPOSAL_EVALUATIONS = 80_000, 800, 20_000
"""Limits of samples times observations in each stage; with many observations fewer samples are used."""

POSTERIOR_SAMPLES = 192
"""Number of samples that represent the posterior."""


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    """Hold samples and their weights (n,), which sum to 1."""

    samples: ParameterSamples
    weight: FloatArray


class Posterior:
    """Draw posterior samples; the prior samples are drawn once, and their predictions are cached."""

    def __init__(
        self, prior: ParameterPrior, emulator: Emulator, pool_features: Sequence[FloatArray], seed: int
    ) -> None:
        """Draw the prior samples from `seed`.

        `pool_features` holds the settings of all configurations that matter to prefill, and those that matter
        to decode, each (m, settings).
        """
        self._prior, self._emulator, self._pool_features = prior, emulator, pool_features
        self.prior_samples = prior.draw(PRIOR_DRAWS, np.random.default_rng([seed, 0]))
        self._predicted: dict[int, FloatArray] = {}
        self._masks: dict[int, BoolArray] = {}

    def draw(self, observations: Observations, seed: int) -> ParameterSamples:
        """Draw POSTERIOR_SAMPLES samples of equal weight from the posterior given `observations`."""
        generator, count = np.random.default_rng([seed, len(observations), 1]), len(observations)
        if not count:
            return self.prior_samples[np.arange(POSTERIOR_SAMPLES)]
        first = self.prior_samples[np.arange(min(PRIOR_DRAWS, MAX_PRIOR_EVALUATIONS // count))]
        predicted = self._prior_predictions(observations, len(first))
        residual = observations.residual(predicted)
        informative = observations.is_informative(residual)
        pools = [self._errors(pool, observations, informative[pool], np.ones(count)) for pool in (0, 1)]
        model = self._model(observations, pools)
        weighted = _tempered(first, model.log_likelihood(first, residual))
        limited = self._emulator.engine_limited(first, predicted, observations.indices)
        engine_share = weighted.weight @ limited
        if (engine_share != 1).any():
            pools[1] = self._errors(1, observations, informative[1], engine_share)
            model = self._model(observations, pools)
        weighted = _tempered(first, model.log_likelihood(first, residual))
        starts = _resampled(weighted, max(min(LAPLACE_STARTS, MAX_START_EVALUATIONS // count), 1), generator)
        proposal = LaplaceMixture(self._prior, starts, model)
        samples = proposal.draw(min(PROPOSAL_DRAWS, MAX_PROPOSAL_EVALUATIONS // count), generator)
        log_likelihood = model.log_likelihood(samples, model.residual(samples))
        log_weight = log_likelihood + proposal.log_importance_weight(samples)
        return _resampled(_tempered(samples, log_weight), POSTERIOR_SAMPLES, generator)

    def _errors(
        self, pool: int, observations: Observations, exact: BoolArray, share: FloatArray
    ) -> Sequence[_PoolError]:
        """Return the error of one pool in each error model, where the `exact` (n,) observations are such.

        `share` (n,) is the share of its smooth error that reaches its capacity. That of decode workers is
        the probability that they limit the decode pool, not the frontend.
        """
        sd = np.where(exact, observations.sd[pool], UNINFORMATIVE_SD)
        observed = self._pool_features[pool][observations.indices]
        every = Correlation.between(observed, observed)
        some = every if exact.all() else Correlation.between(observed[exact], observed[exact])
        errors = []
        for model in self._prior.error_models:
            error = Discrepancy(every, sd, model, share)
            measured = error if exact.all() else Discrepancy(some, sd[exact], model, share[exact])
            errors.append(_PoolError(error, measured.log_root_determinant))
        return errors

    def _model(
        self, observations: Observations, pools: Sequence[Sequence[_PoolError]]
    ) -> _EmulatedObservations:
        """Return the model of `observations` with the errors of both `pools`."""
        errors = [
            _Errors((prefill.error, decode.error), -prefill.log_determinant - decode.log_determinant)
            for prefill, decode in zip(*pools, strict=True)
        ]
        return _EmulatedObservations(
            observations, errors, self._sensitivity(observations), self._prior, self._emulator
        )

    def _prior_predictions(self, observations: Observations, count: int) -> FloatArray:
        """Return the log pool capacities that the first `count` prior samples predict, (2, count, n)."""
        new = _unknown(observations.indices, self._predicted)
        if len(new):
            predicted = self._emulator.log_pool_capacity(self.prior_samples, new)
            self._predicted |= {index: predicted[..., column] for column, index in enumerate(new.tolist())}
        return np.stack([self._predicted[index][:, :count] for index in observations.indices.tolist()], -1)

    def _sensitivity(self, observations: Observations) -> BoolArray:
        """Return the emulator's mask of `observations`, shape (parameters, 2, n)."""
        new = _unknown(observations.indices, self._masks)
        if len(new):
            mask = self._emulator.sensitivity_mask(new)
            self._masks |= {index: mask[..., column] for column, index in enumerate(new.tolist())}
        return np.stack([self._masks[index] for index in observations.indices.tolist()], -1)


class _PoolError(NamedTuple):
    """Hold the discrepancy of a pool, and the log determinant of the root of its measured part."""

    error: Discrepancy
    log_determinant: float


@dataclass(frozen=True, eq=False)
class _Errors:
    """Hold the discrepancies of prefill and decode, and the log of what normalises their density."""

    pools: Sequence[Discrepancy]
    log_normaliser: float


@dataclass(frozen=True, eq=False)
class _EmulatedObservations:
    """Predict `observations` with the `emulator`; implements ObservationModel.

    `errors` holds the discrepancies for each error model of the prior, `emulated_mask` (parameters, 2, n)
    which parameter changes which pool of the emulator.
    """

    observations: Observations
    errors: Sequence[_Errors]
    emulated_mask: BoolArray
    prior: ParameterPrior
    emulator: Emulator

    @cached_property
    def sensitivity_mask(self) -> BoolArray:
        """Return the emulator's mask; a capacity of unknown pools changes with either pool."""
        mask = self.emulated_mask
        result: BoolArray = mask | (mask.any(1, keepdims=True) & self.observations.capacity_only)
        return result

    def residual(self, samples: ParameterSamples) -> FloatArray:
        """Return the residual of the emulated log pool capacities, shape (2, samples, n)."""
        return self.observations.residual(self.emulator.log_pool_capacity(samples, self.observations.indices))

    def whitened(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        """Return `residual` (2, samples, n) in independent standard deviations, shape (samples, 2n)."""
        numbers = self.prior.error_model_of(samples)
        whitened = np.empty((len(samples), 2 * residual.shape[-1]))
        for number in np.unique(numbers).tolist():
            rows, errors = numbers == number, self.errors[number]
            whitened[rows] = _whitened(errors.pools, residual[:, rows])
        return whitened

    def log_likelihood(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        """Return the log likelihood of each sample with `residual`, shape (samples,), up to a constant."""
        normalisers = np.array([errors.log_normaliser for errors in self.errors])
        log_likelihood: FloatArray = -0.5 * (self.whitened(samples, residual) ** 2).sum(1)
        log_likelihood += normalisers[self.prior.error_model_of(samples)]
        return log_likelihood


def _unknown(indices: IntArray, known: Container[int]) -> IntArray:
    """Return those of `indices` that are not `known`, each once and in their order."""
    return np.array([index for index in dict.fromkeys(indices.tolist()) if index not in known], int)


def _whitened(pools: Sequence[Discrepancy], residual: FloatArray) -> FloatArray:
    """Return the whitened residuals (2, samples, n) of both pools side by side, shape (samples, 2n)."""
    return np.concatenate(
        [pool.whitened(pool_residual) for pool, pool_residual in zip(pools, residual, strict=True)], 1
    )


def _tempered(samples: ParameterSamples, log_weight: FloatArray) -> WeightedSamples:
    """Raise the weights to the highest power up to 1 that keeps their effective number large enough."""
    least, low, high = MIN_EFFECTIVE_FRAC * len(samples), 0.0, 1.0
    weight = _normalised(log_weight)
    if 1 / (weight**2).sum() < least:
        for _ in range(TEMPERING_BISECTIONS):
            middle = (low + high) / 2
            weight = _normalised(middle * log_weight)
            low, high = (middle, high) if 1 / (weight**2).sum() >= least else (low, middle)
        weight = _normalised(low * log_weight)
    return WeightedSamples(samples, weight)


def _normalised(log_weight: FloatArray) -> FloatArray:
    """Return weights that sum to 1."""
    weight: FloatArray = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    return weight


def _resampled(weighted: WeightedSamples, count: int, generator: np.random.Generator) -> ParameterSamples:
    """Return `count` samples of equal weight by systematic resampling.

    Source: Kitagawa, J. Comput. Graph. Stat. 5, 1996.
    """
    points = (np.arange(count) + generator.uniform()) / count
    indices = np.searchsorted(np.cumsum(weighted.weight), points).clip(max=len(weighted.samples) - 1)
    return weighted.samples[indices]
