"""Classify trials by what came of them, and find the trials that the report compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tune.records.outcome import Outcome, Probe
from tune.records.study_record import StudyRecord

TrialStatus = Literal["feasible", "stopped_early", "slo_violated", "invalid", "infeasible", "failed"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)

TRIAL_STATUS_WORDS: dict[TrialStatus, str] = {
    "feasible": "feasible",
    "stopped_early": "stopped early",
    "slo_violated": "SLO violated",
    "invalid": "invalid",
    "infeasible": "infeasible",
    "failed": "failed",
}

TRIAL_STATUS_MEANING: dict[TrialStatus, str] = {
    "feasible": "measured; the measurement is valid and every limit held",
    "stopped_early": "measured until it was clear that the deployment cannot beat the best trial so far, or "
    "the rate predicted for another candidate",
    "slo_violated": "measured; at least one limit did not hold",
    "invalid": "measured, but the measurement cannot be trusted; the reason says why",
    "infeasible": "the configuration is wrong: it broke a rule, ran out of memory, or was rejected",
    "failed": "the run failed for a reason outside the configuration; running the study again repeats it",
}

UNMEASURED: tuple[TrialStatus, ...] = ("infeasible", "failed")


def trial_status(outcome: Outcome) -> TrialStatus:
    """Return the status of a trial as the report shows it."""
    if outcome.status != "measured":
        return outcome.status
    if outcome.feasible:
        return "feasible"
    if outcome.capacity_qps.censored:
        return "stopped_early"
    return "slo_violated" if outcome.valid else "invalid"


def distinct_trials(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return each trial once, under the number that proposed it first, in order of number."""
    first: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: o.number):
        first.setdefault(outcome.trial_id, outcome)
    return list(first.values())


def baseline_trial(study: StudyRecord, outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the trial of the baseline configuration, or None if the study has none on record."""
    return next((o for o in outcomes if study.baseline and o.source == "baseline"), None)


def limit_shares(outcome: Outcome | Probe) -> dict[str, float]:
    """Return the share of each latency limit that its statistic uses, by the limit's label.

    A limit that is lifted is absent.
    Source: `constraints` of outcome.json is ln(p99 / limit).
    """
    return {limit.label: share for limit, share in outcome.constraints.used.items()}


def tightest_limit(outcome: Outcome) -> tuple[str, float] | None:
    """Return the limit that is used most and the share used, or None if every limit is lifted."""
    return max(limit_shares(outcome).items(), key=lambda item: item[1], default=None)
