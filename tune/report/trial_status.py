"""What came of each trial, in the words of the report, and the trials that answer the study's question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tune.records.outcome import Outcome, Probe
from tune.records.study_record import StudyRecord

TrialStatus = Literal["feasible", "given_up", "slo_broken", "untrusted", "infeasible", "failed"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)

TRIAL_STATUS_WORDS: dict[TrialStatus, str] = {
    "feasible": "feasible",
    "given_up": "given up",
    "slo_broken": "SLO broken",
    "untrusted": "not valid",
    "infeasible": "infeasible",
    "failed": "failed",
}

TRIAL_STATUS_MEANING: dict[TrialStatus, str] = {
    "feasible": "measured, the measurement can be trusted, and every limit held",
    "given_up": "measured until it was clear that the best one before it is better, or that others should be",
    "slo_broken": "measured, and at least one limit did not hold",
    "untrusted": "measured, but the measurement cannot be trusted; the reason says why",
    "infeasible": "the configuration itself is wrong: it broke a rule, ran out of memory, or was rejected",
    "failed": "the run broke for a reason outside the configuration; running the study again repeats it",
}


def trial_status(outcome: Outcome) -> TrialStatus:
    """A measured trial is feasible, was given up, broke a limit, or is not to be trusted; the rest were not
    measured."""
    if outcome.status != "measured":
        return outcome.status
    if outcome.feasible:
        return "feasible"
    if outcome.capacity_qps.censored:
        return "given_up"
    return "slo_broken" if outcome.valid else "untrusted"


def distinct_trials(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Each trial once, under the number that proposed it first, in order of number."""
    first: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: o.number):
        first.setdefault(outcome.trial_id, outcome)
    return list(first.values())


def baseline_trial(study: StudyRecord, outcomes: Sequence[Outcome]) -> Outcome | None:
    """The configuration to beat, trial 0 of a study that starts from one; None where there is none."""
    return next((o for o in outcomes if study.baseline and o.source == "baseline"), None)


def used(outcome: Outcome | Probe) -> dict[str, float]:
    """Share of each limit that its figure uses, by the limit's label; lifted limits are absent.

    Source: `constraints` of outcome.json is ln(p99 / budget).
    """
    return {limit.label: share for limit, share in outcome.constraints.used.items()}


def tightest(outcome: Outcome) -> tuple[str, float] | None:
    """The limit that is used most and its share, None where every limit is lifted."""
    return max(used(outcome).items(), key=lambda item: item[1], default=None)
