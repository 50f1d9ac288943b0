"""Name the trial that may be better than the answer, and what would decide."""

from __future__ import annotations

from collections.abc import Sequence

from tune.analysis.kinds_to_confirm import kinds_to_confirm
from tune.analysis.ranking import rank
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary, TrialPosterior
from tune.records.study_record import StudyRecord
from tune.report.formatting import describe_configuration
from tune.report.kind_label import kind_label

RIVAL_FRAC = 0.2
"""Probability to be the better one from which a trial is named beside the answer. Chosen here."""


def rival_sentence(
    study: StudyRecord, outcomes: Sequence[Outcome], posterior: PosteriorSummary
) -> str | None:
    """Return which trial may be better than the answer, and what would decide.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    posterior
        What the search learned. Records of tune 0.1 lack the probability, and name none.

    Returns
    -------
    str | None
        None where no trial is likely to be better.
    """
    named = _answer_and_rival(outcomes, posterior)
    if named is None or named[2] < RIVAL_FRAC:
        return None
    answer, rival, probability = named
    likely = (
        f"The answer is trial {answer.number}; trial {rival.number} is better with a probability of "
        f"{100 * probability:.0f} %."
    )
    candidates = _candidates(study, outcomes, posterior)
    if {answer.trial_id, rival.trial_id} <= set(candidates):
        count = 1 + max(map(candidates.index, (answer.trial_id, rival.trial_id)))
        return f"{likely} action=confirm confirm.configurations={count} measures both again and would decide."
    return (
        f"{likely} action=confirm measures one trial of each kind (split and parallelism), and not both of "
        "these. To decide, run the two under a study.name of their own, with their overrides in ranking.csv; "
        "action=confirm with that study.name measures both again."
    )


def _answer_and_rival(
    outcomes: Sequence[Outcome], posterior: PosteriorSummary
) -> tuple[TrialPosterior, TrialPosterior, float] | None:
    """Return the first of the ranking, its likeliest rival, and how probably that is better; or None.

    The ranking is by what is verified. Where another trial has the highest expected capacity, that one is the
    rival.
    """
    rated = [trial for trial in posterior.trials if trial.better_frac is not None]
    best = max(posterior.trials, key=lambda trial: trial.expected_capacity_qps or 0.0, default=None)
    if best is None or not rated:
        return None
    first = next((row["trial_id"] for row in rank(outcomes, posterior) if row["feasible"]), best.trial_id)
    answer = next((trial for trial in rated if trial.trial_id == first), None)
    if answer is not None and answer is not best:
        return answer, best, 1.0 - (answer.better_frac or 0.0)
    rival = max(rated, key=lambda trial: trial.better_frac or 0.0)
    return best, rival, rival.better_frac or 0.0


def _candidates(study: StudyRecord, outcomes: Sequence[Outcome], posterior: PosteriorSummary) -> list[str]:
    """Return what action=confirm can measure again, in its order: ids of trials, names of unmeasured kinds.

    They are the best feasible trial of each kind, or of each configuration where no other kind is in reach.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    feasible = [by_id[row["trial_id"]] for row in rank(outcomes, posterior) if row["feasible"]]
    if not feasible:
        return []
    held: dict[str, str] = {}
    for outcome in feasible:
        held.setdefault(kind_label(outcome, study) or "", outcome.trial_id)
    order = kinds_to_confirm(posterior, feasible[0], list(held))
    if len(order) > 1 or len({kind_label(outcome, study) for outcome in outcomes}) > 1:
        return [held.get(kind, kind) for kind in order]
    best: dict[str, str] = {}
    for outcome in feasible:
        best.setdefault(describe_configuration(outcome, study.space), outcome.trial_id)
    return list(best.values())
