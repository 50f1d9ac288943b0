"""`search=surrogate` as a sampler of Optuna's: it reads the trials of the study and proposes one of its own
candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tune.capacity.simulator_forecast import LOWEST_FRAC
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, PosteriorSummary
from tune.spec.cluster import Calibration
from tune.spec.space import Dimension, Value
from tune.study.candidates import Candidates
from tune.study.optuna_space import distributions, to_point, to_raw
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.summary import expected_capacity_qps, summarise_posterior

SEEN, NUMBER = "seen", "number"
"""User attributes of a trial: `seen_in` its outcome, and its number in the study."""

NOTHING_LEFT = -1.0


def seen_in(outcome: Outcome) -> dict[str, Any]:
    """What the sampler hears of a trial, to be kept beside it: the rest of a Seen, without its index."""
    found = outcome.capacity_qps
    if outcome.status == "infeasible":
        return {"status": "crashed"}
    if found.estimate:
        status = "measured" if outcome.feasible else "forecast"
        alone = {"prefill_capacity_qps": found.prefill, "decode_capacity_qps": found.decode}
        return {"status": status, "qps": found.estimate} | alone
    if found.estimate == 0:
        return {"status": "below", "qps": LOWEST_FRAC * max(probe.target_qps for probe in outcome.probes)}
    if outcome.feasible:
        return {"status": "above", "qps": outcome.target_qps}
    if not outcome.valid:
        return {"status": "invalid", "qps": outcome.target_qps}
    return {"status": "below", "qps": outcome.target_qps}


class SurrogateSampler(optuna.samplers.BaseSampler):
    """Proposes the candidate most worth a deployment, by what the simulator, learning the rack, expects.

    Of the last one proposed: `expected` its boundary, `early_stop_below_qps` as Proposed has it, and
    `gain_frac`, by how much it was expected to raise the best rate, as a share; NOTHING_LEFT where every
    candidate is known, or no higher rate may hold.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        candidates: Candidates,
        calibration: Calibration,
        seed: int,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._distributions = distributions(space)
        self._rates = candidates.rates
        self._rate_space = {name: one for name, one in space.items() if name == candidates.rate}
        settings = {name: one for name, one in space.items() if name != candidates.rate}
        self._settings = tuple(settings)
        self._raw = [to_raw(settings, point) for point in candidates.points]
        self._index = {tuple(raw.values()): at for at, raw in enumerate(self._raw)}
        self._search = SurrogateOptimizer(
            candidates.specs,
            candidates.features,
            candidates.matters,
            calibration,
            seed,
            progress=progress,
            rates_qps=np.array(self._rates, float) if self._rates else None,
        )
        self._of_spec = {spec.trial_id: at for at, spec in enumerate(candidates.specs)}
        self._outside: list[tuple[int, Observation]] = []
        self.expected: Interval | None = None
        self.gain_frac = self.early_stop_below_qps = 0.0

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {} if "fixed_params" in trial.system_attrs else self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        seen = [one for _, one in self._seen(study)]
        proposed = self._search.suggest(seen)
        if proposed is None:
            self.gain_frac, self.expected, self.early_stop_below_qps = NOTHING_LEFT, None, 0.0
            return self._raw_at(0, None)
        self.gain_frac = proposed.expected_improvement_frac
        self.early_stop_below_qps = proposed.early_stop_below_qps
        self.expected = expected_capacity_qps(proposed.prediction, proposed.index)
        return self._raw_at(proposed.index, proposed.qps)

    def _raw_at(self, index: int, qps: float | None) -> dict[str, Any]:
        """In Optuna's terms; the lowest rate where `qps` is None."""
        rates = [rate for rate in self._rates or () if qps is None or rate == qps]
        return self._raw[index] | to_raw(self._rate_space, dict.fromkeys(self._rate_space, *rates[:1]))

    def _qps(self, raw: Mapping[str, Value]) -> float:
        """The rate that a trial is asked; 0 where the highest is searched for."""
        of_trial = to_point(self._rate_space, {name: raw[name] for name in self._rate_space})
        return float(next(iter(of_trial.values()), self._rates[0] if self._rates else 0.0))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: every dimension is sampled together with the others."""
        raise AssertionError(f"{param_name} is not a dimension of the study's space")

    def expect(self, trial_id: str) -> Interval | None:
        """The boundary of the candidate with that id, before anything was measured; None where it is none."""
        index = self._of_spec.get(trial_id)
        return None if index is None else expected_capacity_qps(self._search.predict([]), index)

    def hear(self, outcome: Outcome) -> None:
        """Of a trial that is no point of the sweep: its configuration may be a candidate's all the same, at
        another rate."""
        index = self._of_spec.get(outcome.trial_id)
        if index is not None and outcome.status != "failed":
            self._outside.append((outcome.number, Observation(index, **seen_in(outcome))))

    def belief(self, study: optuna.Study, trial_ids: Mapping[int, str]) -> PosteriorSummary:
        """After all that `study` was told; `trial_ids` by number."""
        numbered = [(number, one) for number, one in self._seen(study) if one.status != "pending"]
        seen = [one for _, one in numbered]
        told = [(trial_ids[number], number, one) for number, one in numbered if number in trial_ids]
        return summarise_posterior(self._search, self._search.predict(seen), seen, told)

    def _seen(self, study: optuna.Study) -> list[tuple[int, Observation]]:
        """Of each trial that teaches something, in order; once of two that were one deployment."""
        found = list(self._outside)
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.FAIL or not trial.params:
                continue
            point = tuple(trial.params[name] for name in self._settings)
            index = self._index.get(point)
            if index is None:
                continue
            told = trial.user_attrs.get(SEEN) or {"status": "pending", "qps": self._qps(trial.params)}
            found.append((trial.user_attrs.get(NUMBER, -1), Observation(index, **told)))
        first = {one: number for number, one in reversed(found)}
        return [(number, one) for number, one in found if first[one] == number]
