"""Classify trials by what came of them, and find the trials that the report compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tune.records.outcome import Outcome, Probe
from tune.records.study_record import StudyRecord

TrialStatus = Literal[
    "feasible", "some_shuffles", "stopped_early", "slo_violated", "invalid", "infeasible", "failed"
]
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)

TRIAL_STATUS_WORDS: dict[TrialStatus, str] = {
    "feasible": "feasible",
    "some_shuffles": "SLO held in some shuffles",
    "stopped_early": "stopped early",
    "slo_violated": "SLO violated",
    "invalid": "invalid",
    "infeasible": "infeasible",
    "failed": "failed",
}

TRIAL_STATUS_MEANING: dict[TrialStatus, str] = {
    "feasible": "measured; the measurement is valid and every limit held, in every shuffle where several "
    "were run",
    "some_shuffles": "measured near a limit: every limit held in some shuffles (orders of the dataset's "
    "lengths) and not in others",
    "stopped_early": "measured until it was clear that the deployment cannot beat the best trial so far, or "
    "the rate predicted for another candidate",
    "slo_violated": "measured; at least one limit did not hold, in any shuffle where several were run",
    "invalid": "measured, but the measurement cannot be trusted; the reason says why",
    "infeasible": "the configuration is wrong: it broke a rule, ran out of memory, or was rejected",
    "failed": "the run failed for a reason outside the configuration; running the study again repeats it",
}

UNMEASURED: tuple[TrialStatus, ...] = ("infeasible", "failed")


def trial_status(outcome: Outcome) -> TrialStatus:
    """Return the status of a trial as the report shows it."""
    if outcome.status != "measured":
        return outcome.status
    if not outcome.valid:
        return "stopped_early" if outcome.capacity_qps.stopped_early else "invalid"
    if outcome.capacity_qps.stopped_early and not outcome.feasible:
        return "stopped_early"
    spread = outcome.spread
    if spread and 0 < spread.slo_met < spread.shuffles:
        return "some_shuffles"
    return "feasible" if outcome.feasible else "slo_violated"


def slo_clause(outcome: Outcome) -> str:
    """Return whether a trial holds its SLO, and in how many shuffles where not in all."""
    status, spread = trial_status(outcome), outcome.spread
    if status == "some_shuffles" and spread:
        return f"holds its SLO in {spread.slo_met} of {spread.shuffles} shuffles"
    return "holds its SLO" if status == "feasible" else "does not hold its SLO"


def describe_verdict(outcome: Outcome) -> str:
    """Return whether a trial holds its SLO, as `slo_clause` does, or why it does not."""
    status = trial_status(outcome)
    if status in ("feasible", "some_shuffles"):
        return slo_clause(outcome)
    if status in ("slo_violated", "invalid"):
        return f"{TRIAL_STATUS_WORDS[status]}: {outcome.reason}"
    return outcome.reason or TRIAL_STATUS_WORDS[status]


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
