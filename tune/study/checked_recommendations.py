"""Check what a trial recommends: against the rules, against the study's other trials, and on the simulator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml
from pydantic import ValidationError

from tune.analysis.slo import slo_holds
from tune.capacity.probe_statistics import used_limit_shares
from tune.engines.check import check
from tune.errors import TuneError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome, Recommendation
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec
from tune.study.confirmation_candidates import identity_without_rate

RATE = "load.target_qps="
"""Beginning of the override of a recommendation that changes nothing but the rate."""

SMALLEST_GAIN_FRAC = 0.005
"""Share of its limit that a change has to free before the simulator is said to expect it. Chosen here."""


@dataclass(frozen=True)
class StudyTrials:
    """Hold the trials that a study has measured, with their specs."""

    trials: tuple[tuple[TrialSpec, Outcome], ...]

    def of(self, spec: TrialSpec) -> Iterator[Outcome]:
        """Yield the valid outcomes of a configuration, whatever their rates and shuffles."""
        identity = identity_without_rate(spec)
        for other, outcome in self.trials:
            if outcome.status == "measured" and outcome.valid and identity_without_rate(other) == identity:
                yield outcome


def study_trials(folder: StudyFolder) -> StudyTrials:
    """Return the trials of a study that have an outcome and a spec on record."""
    found = ((trial.read_spec(), trial.read_outcome()) for trial in folder.trials())
    return StudyTrials(tuple((spec, outcome) for spec, outcome in found if spec and outcome))


def with_checked_recommendations(
    outcome: Outcome, spec: TrialSpec, study: StudyTrials, calibration: Calibration | None
) -> Outcome:
    """Return a trial without the recommendations that something speaks against.

    One that breaks a rule is dropped, and one that the study or the deployment's own capacity has refuted. The
    simulator, where it is calibrated, runs the others once: what it expects to be worse is dropped too, and
    its expectation stands behind the rest.

    Parameters
    ----------
    outcome, spec
        The trial.
    study
        Every trial of its study.
    calibration
        Calibration of the simulated rack that measured the trial; None for a real rack.

    Returns
    -------
    Outcome
        The trial; its `bottleneck` has the recommendations that are left, in their order.
    """
    if outcome.bottleneck is None:
        return outcome
    measured = spec.model_copy(update={"load": spec.load.at(outcome.target_qps)})
    kept = []
    for recommendation in outcome.bottleneck.recommendations:
        if not recommendation.overrides:
            kept.append(recommendation)
            continue
        changed = change_trial(measured, recommendation.overrides)
        if changed is None or _is_refuted(outcome, changed, study):
            continue
        if calibration is None:
            kept.append(recommendation)
            continue
        expected = _expectation(measured, changed, calibration)
        if expected:
            kept.append(recommendation.model_copy(update={"text": f"{recommendation.text} ({expected})"}))
    bottleneck = outcome.bottleneck.model_copy(update={"recommendations": tuple(kept)})
    return outcome.model_copy(update={"bottleneck": bottleneck})


def change_trial(spec: TrialSpec, overrides: Sequence[str]) -> TrialSpec | None:
    """Return `spec` with `overrides`, None where that is no trial or breaks a rule."""
    plain = spec.model_dump(mode="json")
    for override in overrides:
        path, _, value = override.partition("=")
        *parents, leaf = path.split(".")
        node = plain
        for key in parents:
            node = node[key]
        node[leaf] = yaml.safe_load(value)
    try:
        changed = TrialSpec.model_validate_json(json.dumps(plain))
        return None if only_errors(check(changed)) else changed
    except (TuneError, ValidationError):
        return None


def _is_refuted(outcome: Outcome, changed: TrialSpec, study: StudyTrials) -> bool:
    """Return whether the study has measured that the changed trial is no better, or cannot hold its rate."""
    target_qps, capacity_qps = changed.load.target_qps, outcome.capacity_qps.estimate
    own = target_qps != outcome.target_qps
    if own and capacity_qps is not None and target_qps > capacity_qps:
        return True
    for other in study.of(changed):
        if not other.feasible and other.target_qps <= target_qps and other.capacity_qps.estimate is None:
            return True
        if own:
            continue
        before, after = outcome.capacity_qps.estimate, other.capacity_qps.estimate
        if before is not None and after is not None and after <= before:
            return True
        if other.feasible and other.target_qps >= outcome.target_qps and _merit(other) <= _merit(outcome):
            return True
    return False


def _merit(outcome: Outcome) -> float:
    """Return output tokens/s per GPU, 0 where not measured."""
    return outcome.output_tps_per_gpu or 0.0


def _expectation(measured: TrialSpec, changed: TrialSpec, calibration: Calibration) -> str | None:
    """Return what the simulator expects of a change, in words; None where that is nothing good."""
    try:
        log = simulate(changed, calibration)
        if changed.load.target_qps != measured.load.target_qps:
            return "the simulator expects the SLO to hold" if slo_holds(log, changed.slo) else None
        before, after = (
            max(used_limit_shares(each, changed.slo)) for each in (simulate(measured, calibration), log)
        )
    except TuneError:
        return None
    if after > before - SMALLEST_GAIN_FRAC:
        return None
    return f"simulated: {after:.0%} of the tightest limit used instead of {before:.0%}"
