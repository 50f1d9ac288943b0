"""Suggest configurations by Bayesian optimisation with the simulator as surrogate model.

The posterior of the simulator's parameters and of its discrepancy predicts the capacity of every
configuration. The acquisition is expected improvement times probability of feasibility. If the simulator
predicts no further improvement, a Gaussian process without a serving model takes over (model mismatch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.spec.cluster import Calibration
from tune.spec.kind import kind_of
from tune.spec.trial import TrialSpec
from tune.surrogate.acquisition import PRIOR_CRASH_FRAC, early_stop_threshold_qps
from tune.surrogate.emulator import Emulator, log_capacity
from tune.surrogate.error_scale import scale_of, standardised_error
from tune.surrogate.improvement import (
    feasibility,
    improvement,
    improvement_of_runs,
    mismatch_improvement,
    rates_above_verified,
)
from tune.surrogate.observation import Observation, pool_observations
from tune.surrogate.posterior import Posterior
from tune.surrogate.prediction import Prediction, SelectedCandidate
from tune.surrogate.prediction_table import PredictionTable
from tune.surrogate.prior import ParameterPrior, ParameterSamples, structural_hypotheses

MISMATCH_IMPROVEMENT_FRAC = 0.0003
"""If the fitted simulator predicts an improvement below this share, the search falls back to a Gaussian
process: a study that still goes on must assume that the simulator is wrong. Chosen on the development racks
of benchmarks/search_synthetic_racks.py."""

LEADERS, MOST_EXPANSIONS = 6, 16
"""Number of most promising configurations whose neighbours are predicted, and how often. Chosen here."""

SIMULATED_AT_ONCE = 12
"""Number of configurations whose prefill pools are simulated where one of the most promising is not: that
many promise more than they would after it. Chosen here."""

Neighbours = Callable[[Sequence[int]], tuple[Sequence[int], Sequence[TrialSpec], FloatArray]]
"""Return the configurations next to those of given indices, with specs and features of the new ones."""


@dataclass
class SurrogateOptimizer:
    """Optimise over configurations on hardware whose parameters are unknown.

    The results depend only on the arguments and the observations.

    Parameters
    ----------
    specs
        The n configurations; they differ in engines and split only.
    features
        Their settings, scaled to 0..1, shape (n, settings).
    relevance
        Which settings affect the prefill pool, and which the decode pool, shape (2, settings).
    calibration
        Calibration of the simulator, the centre of the prior.
    seed
        Seed of all draws.
    structural
        Whether discrete hypotheses other than those of configuration and calibration are considered.
    progress
        Called with the number of prefill pools that are simulated in advance so far, and of all.
    rates_qps
        Rising rates, of which a deployment is measured at one; None if its capacity is searched for.
    neighbours
        Returns the configurations next to those of given indices, and specs and features of the new ones
        among them, which get the next indices.
    simulated
        Emulator of another optimizer of these `specs` and this `calibration`, whose simulations are not
        repeated; neither optimizer may have `neighbours`, as the emulator has one list of configurations.
        None simulates them.
    """

    specs: Sequence[TrialSpec]
    features: FloatArray
    relevance: BoolArray
    calibration: Calibration
    seed: int
    structural: bool = True
    progress: Callable[[int, int], None] = lambda done, total: None
    rates_qps: FloatArray | None = None
    neighbours: Neighbours = lambda indices: ((), (), np.zeros((0, 0)))
    simulated: InitVar[Emulator | None] = None
    prior: ParameterPrior = field(init=False)
    emulator: Emulator = field(init=False)
    kinds: list[str] = field(init=False)
    _pool_features: list[FloatArray] = field(init=False)
    _first: int = field(init=False)
    _posterior: Posterior = field(init=False)
    _cached_prediction: tuple[tuple[Observation, ...] | None, Prediction | None] = field(
        init=False, default=(None, None)
    )
    _errors: list[tuple[Observation, float | None]] = field(init=False, default_factory=list)
    _cached_improvement: tuple[tuple[Observation, ...] | None, FloatArray | None] = field(
        init=False, default=(None, None)
    )

    def __post_init__(self, simulated: Emulator | None) -> None:
        """Simulate the curves of the emulator unless they are `simulated`, and draw the prior samples."""
        prefill_tp = sorted({spec.prefill.tensor_parallel for spec in self.specs})
        decode_tp = sorted({spec.decode.tensor_parallel for spec in self.specs})
        self.prior = ParameterPrior(
            prefill_tp, decode_tp, structural_hypotheses(self.specs[0], self.calibration, self.structural)
        )
        self.emulator = simulated or Emulator(self.specs, self.calibration, self.prior, self.progress)
        self._first = len(self.specs)
        self.kinds = [kind_of(spec) for spec in self.specs]
        self._pool_features = [self.features[:, relevant] for relevant in self.relevance]
        self._posterior = Posterior(self.prior, self.emulator, self._pool_features, self.seed)

    @property
    def prior_samples(self) -> ParameterSamples:
        """Return samples of the prior."""
        return self._posterior.prior_samples

    def log_capacity(self, samples: ParameterSamples, indices: IntArray) -> FloatArray:
        """Return the emulated log capacity of the configurations `indices` (m,), shape (samples, m)."""
        return log_capacity(self.emulator.log_pool_capacity(samples, indices))

    def predict(self, observations: Sequence[Observation]) -> Prediction:
        """Return the posterior prediction given `observations`.

        The last result is cached, because recording the posterior needs it again.
        """
        self._learn_errors(observations)
        known, prediction = self._cached_prediction
        if known != tuple(observations):
            prediction = self._predict(observations)
            self._cached_prediction = tuple(observations), prediction
        assert prediction is not None
        return prediction

    def error_scale(self, observations: Sequence[Observation]) -> float:
        """Return by what factor errors are larger than `predict(observations)` has them, by those so far."""
        count = self._learn_errors(observations)
        return scale_of([error for _, error in self._errors[:count] if error is not None])

    def _learn_errors(self, observations: Sequence[Observation]) -> int:
        """Compare each capacity with its prediction from the observations before it; return their number.

        The last prediction is mostly that of the newest one, so this comes before the next.
        """
        finished = [item for item in observations if item.status != "pending"]
        for place, observation in enumerate(finished):
            if place < len(self._errors) and self._errors[place][0] == observation:
                continue
            del self._errors[place:]
            error = None
            if observation.status in ("measured", "forecast"):
                error = standardised_error(self.predict(finished[:place]), observation)
            self._errors.append((observation, error))
        return len(finished)

    def _predict(self, observations: Sequence[Observation]) -> Prediction:
        """Compute the posterior prediction of the first, the tried and the most promising configurations.

        Neighbours of the most promising ones are added, then the prefill pools of these are simulated, until
        those that lead are simulated and have no neighbour that is new.
        """
        observed = pool_observations(observations)
        focus = np.unique(np.array([observation.index for observation in observations], int))
        self.emulator.focus(focus)
        samples = self._posterior.draw(observed, self.seed)
        table = PredictionTable(self.emulator, self.prior, self._pool_features, samples, observed)
        table.predict(np.union1d(np.arange(self._first), focus))
        rounds = 0
        while True:
            prediction = table.prediction()
            gain = improvement(prediction, observations, self.features, self.rates_qps)
            ranking = _ranking(prediction, gain)
            leaders = ranking[:LEADERS]
            new = np.zeros(0, int)
            if rounds < MOST_EXPANSIONS:
                new = np.setdiff1d(self._neighbours(leaders), np.flatnonzero(table.is_predicted))
            rounds += 1
            if len(new):
                table.predict(new)
                continue
            if self.emulator.is_simulated(leaders).all():
                self._cached_improvement = tuple(observations), gain
                return prediction
            rough = ranking[~self.emulator.is_simulated(ranking)][:SIMULATED_AT_ONCE]
            before = np.flatnonzero(table.is_predicted)
            before = before[~self.emulator.is_simulated(before)]
            focus = np.union1d(focus, rough)
            self.emulator.focus(focus)
            table.predict(before[self.emulator.is_simulated(before)])

    def _neighbours(self, indices: IntArray) -> IntArray:
        """Return the configurations next to `indices`; new ones are added to all."""
        found, specs, features = self.neighbours(indices.tolist())
        if specs:
            self.extend(specs, features)
        return np.array(found, int)

    def extend(self, specs: Sequence[TrialSpec], features: FloatArray) -> None:
        """Add configurations, which are predicted where they are tried or promising."""
        self.specs = [*self.specs, *specs]
        self.features = np.concatenate([self.features, features])
        self.emulator.add(specs)
        self.kinds += [kind_of(spec) for spec in specs]
        self._pool_features[:] = [self.features[:, relevant] for relevant in self.relevance]

    def expected_improvement(self, prediction: Prediction, observations: Sequence[Observation]) -> FloatArray:
        """Return the acquisition value of every configuration, a share of the best rate, shape (n,).

        `prediction` is that of `observations`. The last result is cached.
        """
        known, gain = self._cached_improvement
        if known != tuple(observations) or gain is None:
            gain = improvement(prediction, observations, self.features, self.rates_qps)
            self._cached_improvement = tuple(observations), gain
        return gain

    def suggest(self, observations: Sequence[Observation]) -> SelectedCandidate | None:
        """Return the configuration most worth a deployment; None if all are observed or running.

        What runs raises the best rate of each sample to what that sample predicts for it (the expected
        improvement of a batch, Ginsbourger, Le Riche and Carraro 2010, summed over samples). A batch thus
        tries what is best if the samples that favour its first trials are wrong.
        """
        prediction = self.predict(observations)
        if self.rates_qps is not None:
            return self._suggest_rate(prediction, observations)
        observed = [observation.index for observation in observations]
        candidates = np.setdiff1d(np.flatnonzero(prediction.is_predicted), observed)
        if not len(candidates):
            return None
        score = gain = self.expected_improvement(prediction, observations)
        if gain[candidates].max() <= MISMATCH_IMPROVEMENT_FRAC:
            mismatch = mismatch_improvement(prediction, observations, self.features)
            score = gain if mismatch is None else mismatch
        if not score[candidates].max() > 0:
            score = prediction.expected_capacity_qps
        index = int(candidates[score[candidates].argmax()])
        others = candidates[candidates != index]
        early_stop_below_qps = self._early_stop_below_qps(prediction, observations, index, others)
        return SelectedCandidate(
            index, float(gain[index]), prediction, early_stop_below_qps=early_stop_below_qps
        )

    def _early_stop_below_qps(
        self, prediction: Prediction, observations: Sequence[Observation], index: int, others: IntArray
    ) -> float:
        """Return the rate below which one of `others` is predicted to be better than `index`; 0 if none.

        The predicted rate of each alternative is scaled by its probability of running, relative to the prior
        probability.
        """
        running = np.minimum(feasibility(self.features, observations)[others] / (1 - PRIOR_CRASH_FRAC), 1)
        return early_stop_threshold_qps(
            prediction.log_mean[:, index],
            prediction.sd[:, index],
            prediction.capacity_qps[:, others] * running,
        )

    def _suggest_rate(
        self, prediction: Prediction, observations: Sequence[Observation]
    ) -> SelectedCandidate | None:
        """Return the configuration most worth a run, and its rate; None if no higher rate may hold."""
        index = int(self.expected_improvement(prediction, observations).argmax())
        assert self.rates_qps is not None
        rates = rates_above_verified(self.rates_qps, observations)
        gain = improvement_of_runs(
            prediction,
            observations,
            self.features,
            np.array([index]),
            rates,
            lowest_qps=float(self.rates_qps[0]),
        )[0]
        if not gain.max(initial=0.0):
            return None
        return SelectedCandidate(index, float(gain.max()), prediction, float(rates[gain.argmax()]))


def _ranking(prediction: Prediction, gain: FloatArray) -> IntArray:
    """Return the predicted configurations, those of the highest acquisition value `gain` (n,) first."""
    order = np.lexsort((-prediction.expected_capacity_qps, -gain))
    ranking: IntArray = order[prediction.is_predicted[order]]
    return ranking
