"""Check what a trial recommends: against the rules, the study's other trials, and the simulator."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import yaml
from pydantic import ValidationError

from tune.analysis.slo import slo_holds
from tune.engines.check import check
from tune.errors import TuneError
from tune.records.folders import StudyFolder
from tune.records.outcome import Bottleneck, Outcome, Recommendation
from tune.records.study_record import StudyRecord
from tune.report.simulated_gain import SimulatedTrial
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.timed_rules import check_timed
from tune.spec.trial import TrialSpec

SHUFFLES = 5
"""Shuffles in which a recommended rate has to hold, as a trial near its limits has to."""

RATE_STEP_FRAC, MAX_RATE_STEPS = 0.05, 8
"""Share by which a lower rate is lowered again, and how often, until the simulator expects it to hold. Chosen
here."""


@dataclass(frozen=True)
class StudyTrials:
    """Hold the trials that a study has measured, with their specs."""

    trials: tuple[tuple[TrialSpec, Outcome], ...]

    def of(self, spec: TrialSpec) -> Sequence[Outcome]:
        """Return the valid outcomes of a configuration, whatever their rates and shuffles."""
        return self._by_identity.get(spec.identity_without_rate, ())

    @cached_property
    def _by_identity(self) -> Mapping[str, Sequence[Outcome]]:
        """Return the valid outcomes of each configuration."""
        found = defaultdict[str, list[Outcome]](list)
        for spec, outcome in self.trials:
            if outcome.status == "measured" and outcome.valid:
                found[spec.identity_without_rate].append(outcome)
        return found


def study_trials(folder: StudyFolder) -> StudyTrials:
    """Return the trials of a study that have an outcome and a spec on record."""
    found = ((trial.read_spec(), trial.read_outcome()) for trial in folder.trials())
    return StudyTrials(tuple((spec, outcome) for spec, outcome in found if spec and outcome))


def recommendable(
    outcomes: Sequence[Outcome], top_id: str | None, folder: StudyFolder, record: StudyRecord
) -> list[Outcome]:
    """Return the trials of a study with recommendations that nothing speaks against.

    Parameters
    ----------
    outcomes
        Every trial on record.
    top_id
        The trial that a report puts first; no other keeps recommendations. None for none.
    folder, record
        Folder and record of the study.

    Returns
    -------
    list[Outcome]
        The trials in their order.
    """
    shown = []
    for outcome in outcomes:
        spec = folder.trial(outcome.trial_id).read_spec() if outcome.trial_id == top_id else None
        if spec:
            study, calibration = study_trials(folder), recorded_calibration(record)
            shown.append(with_checked_recommendations(outcome, spec, study, calibration))
        else:
            bottleneck = outcome.bottleneck and outcome.bottleneck.model_copy(update={"recommendations": ()})
            shown.append(outcome.model_copy(update={"bottleneck": bottleneck}))
    return shown


def recorded_calibration(record: StudyRecord) -> Calibration | None:
    """Return the calibration that the cluster of a study carried; None where it had none."""
    plain = record.base.get("cluster", {}).get("calibration")
    return Calibration.model_validate(plain) if plain else None


def with_checked_recommendations(
    outcome: Outcome, spec: TrialSpec, study: StudyTrials, calibration: Calibration | None
) -> Outcome:
    """Return a trial without the recommendations that something speaks against.

    A recommendation that breaks a rule is dropped. At a rate, one is too that the study or the deployment's
    own capacity has refuted. The simulator, where it is calibrated and knows the step times, runs the others:
    what it expects to gain nothing is dropped, and its expectation stands behind the rest. Words without a
    setting are kept.

    Parameters
    ----------
    outcome, spec
        The trial.
    study
        Every trial of its study.
    calibration
        Calibration of the rack that measured the trial, simulated or real; None without one.

    Returns
    -------
    Outcome
        The trial; its `bottleneck` has the recommendations that are left, in their order.
    """
    if outcome.bottleneck is None:
        return outcome
    if spec.load.is_closed_loop:
        return _without_rule_breakers(outcome, outcome.bottleneck, spec)
    measured = spec.model_copy(update={"load": spec.load.at(outcome.offered_qps)})
    calibration = None if check_timed(measured, calibration) else calibration
    simulated_trial = SimulatedTrial(measured, calibration) if calibration else None
    kept = []
    for recommendation in outcome.bottleneck.recommendations:
        changed = change_trial(measured, recommendation.overrides)
        if not recommendation.overrides:
            kept.append(recommendation)
        elif changed and not _is_refuted(outcome, changed, study):
            simulated = simulated_trial and _simulated(recommendation, simulated_trial, changed)
            kept += [simulated] if simulated else [] if simulated_trial else [recommendation]
    bottleneck = outcome.bottleneck.model_copy(update={"recommendations": tuple(kept)})
    return outcome.model_copy(update={"bottleneck": bottleneck})


def _without_rule_breakers(outcome: Outcome, bottleneck: Bottleneck, spec: TrialSpec) -> Outcome:
    """Return a trial without the recommendations that break a rule."""
    kept = tuple(r for r in bottleneck.recommendations if change_trial(spec, r.overrides))
    bottleneck = bottleneck.model_copy(update={"recommendations": kept})
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
    target_qps, capacity_qps = changed.load.offered_qps, outcome.capacity_qps.estimate
    own = target_qps != outcome.offered_qps
    if own and capacity_qps is not None and target_qps > capacity_qps:
        return True
    for other in study.of(changed):
        if not other.feasible and other.offered_qps <= target_qps and other.capacity_qps.estimate is None:
            return True
        if own:
            continue
        before, after = outcome.capacity_qps.estimate, other.capacity_qps.estimate
        if before is not None and after is not None and after <= before:
            return True
        if other.feasible and other.offered_qps >= outcome.offered_qps and _merit(other) <= _merit(outcome):
            return True
    return False


def _merit(outcome: Outcome) -> float:
    """Return output tokens/s per GPU, 0 where not measured."""
    return outcome.output_tps_per_gpu or 0.0


def _simulated(
    recommendation: Recommendation, trial: SimulatedTrial, changed: TrialSpec
) -> Recommendation | None:
    """Return a recommendation with what the simulator expects of it; None where that is nothing good."""
    try:
        if changed.load.offered_qps != trial.measured.load.offered_qps:
            return _simulated_rate(recommendation, trial.measured, changed, trial.calibration)
        expected = trial.expected_gain(changed)
    except TuneError:
        return None
    if expected is None:
        return None
    return recommendation.model_copy(update={"text": f"{recommendation.text} (simulated: {expected})"})


def _simulated_rate(
    recommendation: Recommendation, measured: TrialSpec, changed: TrialSpec, calibration: Calibration
) -> Recommendation | None:
    """Return the recommendation of a rate that the simulator expects to hold; None where there is none.

    A lower rate is lowered further until one is expected to hold.
    """
    target_qps = changed.load.offered_qps
    lower = target_qps < measured.load.offered_qps
    for _ in range(MAX_RATE_STEPS if lower else 1):
        if holds_in_every_shuffle(changed, target_qps, calibration):
            return recommendation.model_copy(
                update={
                    "text": f"{recommendation.text} (the simulator expects it to hold in every shuffle)",
                    "overrides": (f"load.target_qps={target_qps:g}",),
                }
            )
        target_qps = float(f"{target_qps * (1 - RATE_STEP_FRAC):.3g}")
    return None


def holds_in_every_shuffle(spec: TrialSpec, target_qps: float, calibration: Calibration) -> bool:
    """Return whether full runs at `target_qps` hold in SHUFFLES shuffles, the trial's own among them."""
    first = spec.load.at(target_qps)
    seeds = range(first.shuffle_seed, first.shuffle_seed + SHUFFLES)
    loads = (first.model_copy(update={"shuffle_seed": seed}) for seed in seeds)
    return all(
        slo_holds(simulate_serving(spec.model_copy(update={"load": load}), calibration), spec.slo)
        for load in loads
    )
