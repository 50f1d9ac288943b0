"""Check what a trial recommends: against the rules, the study's other trials, and the simulator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml
from pydantic import ValidationError

from tune.analysis.slo import slo_holds, used_frac
from tune.engines.check import check
from tune.errors import TuneError
from tune.loadgen.latencies import answered, latencies
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome, Recommendation
from tune.records.requests import RequestLog
from tune.records.study_record import StudyRecord
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.timed_rules import check_timed
from tune.spec.trial import TrialSpec

SMALLEST_GAIN_FRAC = 0.005
"""Share of its limit that a change has to free before the simulator is said to expect it. Chosen here."""

SHUFFLES = 5
"""Shuffles in which a recommended rate has to hold, as a trial near its limits has to."""

RATE_STEP_FRAC, MAX_RATE_STEPS = 0.05, 8
"""Share by which a lower rate is lowered again, and how often, until the simulator expects it to hold. Chosen
here."""


@dataclass(frozen=True)
class StudyTrials:
    """Hold the trials that a study has measured, with their specs."""

    trials: tuple[tuple[TrialSpec, Outcome], ...]

    def of(self, spec: TrialSpec) -> Iterator[Outcome]:
        """Yield the valid outcomes of a configuration, whatever their rates and shuffles."""
        identity = spec.identity_without_rate
        for other, outcome in self.trials:
            if outcome.status == "measured" and outcome.valid and other.identity_without_rate == identity:
                yield outcome


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

    A recommendation that breaks a rule is dropped, and one that the study or the deployment's own capacity
    has refuted. The simulator, where it is calibrated and knows the step times, runs the others once: what it
    expects to be worse is dropped too, and its expectation stands behind the rest. Words without a setting
    are kept.

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
    measured = spec.model_copy(update={"load": spec.load.at(outcome.target_qps)})
    calibration = None if check_timed(measured) else calibration
    kept = []
    for recommendation in outcome.bottleneck.recommendations:
        changed = change_trial(measured, recommendation.overrides)
        if not recommendation.overrides:
            kept.append(recommendation)
        elif changed and not _is_refuted(outcome, changed, study):
            simulated = calibration and _simulated(recommendation, measured, changed, calibration)
            kept += [simulated] if simulated else [] if calibration else [recommendation]
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


def _simulated(
    recommendation: Recommendation, measured: TrialSpec, changed: TrialSpec, calibration: Calibration
) -> Recommendation | None:
    """Return a recommendation with what the simulator expects of it; None where that is nothing good."""
    try:
        if changed.load.target_qps != measured.load.target_qps:
            return _simulated_rate(recommendation, measured, changed, calibration)
        before, after = (_tightest_share(simulate(each, calibration), each) for each in (measured, changed))
    except TuneError:
        return None
    if after > before - SMALLEST_GAIN_FRAC:
        return None
    expected = f"simulated: {100 * after:.0f} % of the tightest limit used instead of {100 * before:.0f} %"
    return recommendation.model_copy(update={"text": f"{recommendation.text} ({expected})"})


def _simulated_rate(
    recommendation: Recommendation, measured: TrialSpec, changed: TrialSpec, calibration: Calibration
) -> Recommendation | None:
    """Return the recommendation of a rate that the simulator expects to hold; None where there is none.

    A lower rate is lowered further until one is expected to hold.
    """
    target_qps = changed.load.target_qps
    lower = target_qps < measured.load.target_qps
    for _ in range(MAX_RATE_STEPS if lower else 1):
        if _holds_in_every_shuffle(changed, target_qps, calibration):
            return recommendation.model_copy(
                update={
                    "text": f"{recommendation.text} (the simulator expects it to hold in every shuffle)",
                    "overrides": (f"load.target_qps={target_qps:g}",),
                }
            )
        target_qps = float(f"{target_qps * (1 - RATE_STEP_FRAC):.3g}")
    return None


def _holds_in_every_shuffle(spec: TrialSpec, target_qps: float, calibration: Calibration) -> bool:
    """Return whether full runs at `target_qps` hold in SHUFFLES shuffles, the trial's own among them."""
    first = spec.load.at(target_qps)
    seeds = range(first.shuffle_seed, first.shuffle_seed + SHUFFLES)
    loads = (first.model_copy(update={"shuffle_seed": seed}) for seed in seeds)
    return all(
        slo_holds(simulate(spec.model_copy(update={"load": load}), calibration), spec.slo) for load in loads
    )


def _tightest_share(log: RequestLog, spec: TrialSpec) -> float:
    """Return the largest share of a limit that a run uses."""
    times = latencies(log, answered(log))
    return max((used_frac(limit, limit_s, times) for limit, limit_s in spec.slo.limits), default=0.0)
