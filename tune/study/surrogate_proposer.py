"""Suggest the candidate with the highest expected gain, by a fitted surrogate (`search=surrogate`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tune.capacity.simulator_forecast import MIN_RATE_FRAC
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior, PosteriorSummary
from tune.spec.bind import Point
from tune.spec.cluster import Calibration
from tune.spec.space import Dimension
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import Candidates
from tune.study.proposer import SearchEnd, TrialSuggestion
from tune.study.search_space import typed_value
from tune.surrogate.credible_interval import expected_capacity_qps
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.summary import summarise_posterior


@dataclass
class _EnteredTrial:
    """Hold a trial of the study; `observation` is None where it teaches nothing about any candidate."""

    number: int
    observation: Observation | None


MIN_OBSERVATIONS = 12
"""Trials before which a small expected gain does not end the search, unless half of the candidates are known:
with fewer the model is now and then sure of what is wrong. On 40 development racks 88.6 % of the runs that
ended were within 2 % of the best without this limit, after 417 GPU-hours in the mean, and 90.6 % with it,
after 497. Source: docs/benchmarks.md."""


class SurrogateProposer:
    """Suggest the candidate with the highest expected gain, until that gain is below `min_gain`.

    While other trials run, `min_gain` does not end the study: their outcomes decide.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        candidates: Candidates,
        nearby: CandidateSpace,
        calibration: Calibration,
        seed: int,
        *,
        min_gain: float = 0.0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Build the surrogate of `candidates` and of those that `nearby` finds.

        `progress` is that of SurrogateOptimizer.
        """
        self._space = space
        self._candidates, self._nearby = candidates, nearby
        self._min_gain = min_gain
        self._optimizer = SurrogateOptimizer(
            candidates.specs,
            candidates.features,
            candidates.matters,
            calibration,
            seed,
            progress=progress,
            rates_qps=np.array(candidates.rates, float) if candidates.rates else None,
            neighbours=nearby.neighbours,
        )
        self._entered: list[_EnteredTrial] = []
        self._running: dict[int, _EnteredTrial] = {}
        self._outside: list[tuple[int, Observation]] = []

    def suggest(self, number: int) -> TrialSuggestion | SearchEnd:
        """Return the candidate with the highest expected gain, at its rate where rates are swept.

        The search ends when every candidate is known or runs, when no higher rate may hold, or when no trial
        runs and the expected gain is below `min_gain`, and was before the last outcome too, after
        MIN_OBSERVATIONS or half of the candidates.
        """
        observations = [observation for _, observation in self._observations()]
        selected = self._optimizer.suggest(observations)
        if selected is None:
            return SearchEnd("gain", 0.0) if self._candidates.rates else SearchEnd("points")
        gain = selected.expected_improvement_frac
        if self._gains_too_little(gain, observations):
            return SearchEnd("gain", gain)
        point = self._point(selected.index, selected.qps)
        self._enter(number, point)
        return TrialSuggestion(
            point,
            expected_capacity_qps=expected_capacity_qps(
                selected.prediction, selected.index, self._optimizer.error_scale(observations)
            ),
            early_stop_below_qps=selected.early_stop_below_qps,
            expected_improvement_frac=selected.expected_improvement_frac,
        )

    def add_trial(self, number: int, point: Point, source: str) -> None:
        """Enter the point as running; one that is no candidate teaches nothing."""
        self._enter(number, point)

    def observe(self, number: int, outcome: Outcome) -> None:
        """Update the posterior with the outcome of a candidate.

        A trial that was not entered, such as a baseline at a rate outside the sweep, is matched to a
        candidate by its trial_id.
        """
        trial = self._running.pop(number, None)
        if trial is None:
            index = self._nearby.index_of_trial(outcome.trial_id)
            if index is not None and outcome.status != "failed":
                self._outside.append((outcome.number, observation_of(outcome, index)))
        elif outcome.status == "failed":
            trial.observation = None
        elif trial.observation is not None:
            trial.observation = observation_of(outcome, trial.observation.index)

    def baseline_capacity_qps(self, trial_id: str) -> Interval | None:
        """Return the capacity that the prior predicts for the candidate `trial_id`; None for no candidate."""
        index = self._nearby.index_of_trial(trial_id)
        return None if index is None else expected_capacity_qps(self._optimizer.predict([]), index)

    def summarise(self, trial_ids: Mapping[int, str]) -> PosteriorSummary:
        """Return the posterior after all outcomes; it lists the trials that `trial_ids` names by number."""
        numbered = [pair for pair in self._observations() if pair[1].status != "pending"]
        observations = [observation for _, observation in numbered]
        trials = [(trial_ids[number], number, seen) for number, seen in numbered if number in trial_ids]
        summary = summarise_posterior(
            self._optimizer, self._optimizer.predict(observations), observations, trials
        )
        return summary.model_copy(update={"kinds": tuple(map(self._with_params, summary.kinds))})

    def _with_params(self, kind: KindPosterior) -> KindPosterior:
        """Return `kind` with the point of its best candidate."""
        index = self._nearby.index_of_trial(kind.trial_id)
        return kind if index is None else kind.model_copy(update={"params": self._nearby.points[index]})

    def _enter(self, number: int, point: Point) -> None:
        """Keep the trial as running; its observation is pending where the point is a candidate."""
        found, specs, features = self._nearby.find(point)
        if specs:
            self._optimizer.extend(specs, features)
        pending = Observation(found[0], "pending", self._offered_qps(point)) if found else None
        trial = _EnteredTrial(number, pending)
        self._entered.append(trial)
        self._running[number] = trial

    def _gains_too_little(self, gain: float, observations: Sequence[Observation]) -> bool:
        """Return whether an expected `gain`, a share of the best rate, ends the search."""
        least = min(MIN_OBSERVATIONS, math.ceil(len(self._candidates.specs) / 2))
        may_end = not self._running and len(observations) >= least
        return may_end and gain < self._min_gain and self._gain(observations[:-1]) < self._min_gain

    def _gain(self, observations: Sequence[Observation]) -> float:
        """Return the highest expected gain after `observations`, a share of the best rate."""
        prediction = self._optimizer.predict(observations)
        return float(self._optimizer.expected_improvement(prediction, observations).max())

    def _point(self, index: int, qps: float | None) -> Point:
        """Return candidate `index` as a point of the sweep, at `qps` where the sweep varies the rate."""
        values = dict(self._nearby.points[index])
        if self._candidates.rate:
            values[self._candidates.rate] = next(rate for rate in self._candidates.rates or () if rate == qps)
        return {name: typed_value(dimension, values[name]) for name, dimension in self._space.items()}

    def _offered_qps(self, point: Point) -> float:
        """Return the rate at which a trial of `point` runs; 0 where each trial searches for its capacity."""
        if self._candidates.rate:
            return float(cast("float", point[self._candidates.rate]))
        return float(self._candidates.rates[0]) if self._candidates.rates else 0.0

    def _observations(self) -> list[tuple[int, Observation]]:
        """Return trial number and observation of each trial that teaches something, in order.

        Two trials that shared one deployment have equal observations and count once, under the first number.
        """
        entered = [(trial.number, trial.observation) for trial in self._entered if trial.observation]
        observations = [*self._outside, *entered]
        first = {observation: number for number, observation in reversed(observations)}
        return [(number, seen) for number, seen in observations if first[seen] == number]


def observation_of(outcome: Outcome, index: int) -> Observation:
    """Convert `outcome` into an observation of the capacity of candidate `index`."""
    capacity = outcome.capacity_qps
    if outcome.status == "infeasible":
        return Observation(index, "crashed")
    if capacity.estimate:
        return Observation(
            index,
            "measured" if outcome.feasible else "forecast",
            capacity.estimate,
            capacity.prefill,
            capacity.decode,
        )
    if capacity.estimate == 0:
        lowest_qps = MIN_RATE_FRAC * max(probe.offered_qps for probe in outcome.probes)
        return Observation(index, "below", lowest_qps)
    if outcome.feasible:
        return Observation(index, "above", outcome.offered_qps)
    return Observation(index, "below" if outcome.valid else "invalid", outcome.offered_qps)
