"""Describe what the best kind other than the recommended one gives, whether measured or predicted."""

from __future__ import annotations

from collections.abc import Sequence

from tune.analysis.ranking import rank
from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report.configuration_kinds import BestOfKind, best_of_kinds
from tune.report.formatting import format_figure
from tune.report.prediction_pairs import errors_so_far
from tune.spec.metrics import OUTPUT_TPS_PER_GPU


def other_kind_sentence(kinds: Sequence[BestOfKind]) -> str | None:
    """Return what the best other kind gives and how far it is from the recommended one; None without one.

    `kinds` are those of `best_of_kinds`.
    """
    recommended = next((kind for kind in kinds if kind.is_recommended), None)
    other = _best_other(kinds)
    if recommended is None or not recommended.held or other is None or not other.output_tps_per_gpu:
        return None
    figure = f"{format_figure(other.output_tps_per_gpu, 4)} {OUTPUT_TPS_PER_GPU.unit}"
    change = other.output_tps_per_gpu / recommended.held - 1
    against = f"{abs(change) * 100:.1f} % {'more' if change > 0 else 'less'}"
    if other.expected is None:
        return f"{other.label} gives {figure}, {against}."
    why = "none of its trials held the SLO" if other.trials else "it was not measured"
    low, high = format_figure(other.expected.low, 4), format_figure(other.expected.high, 4)
    return f"{other.label} is expected to give {figure} (90 % interval: {low} to {high}), {against}; {why}."


def prediction_errors(
    kinds: Sequence[BestOfKind], outcomes: Sequence[Outcome], proposals: Sequence[Proposal]
) -> str | None:
    """Return how far off the predictions of `outcomes` were, None if the best other kind was measured."""
    other = _best_other(kinds)
    return errors_so_far(outcomes, proposals) if other and other.expected else None


def _best_other(kinds: Sequence[BestOfKind]) -> BestOfKind | None:
    """Return the best of `kinds`, best first, that is not recommended."""
    return next((kind for kind in kinds if not kind.is_recommended), None)


def other_kind_lines(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    confirmation: Confirmation | None,
    posterior: PosteriorSummary | None,
    proposals: Sequence[Proposal],
) -> list[str]:
    """Return the line on the best split and parallelism other than the recommended ones, if one is known.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    confirmation
        The repeats of the best configurations, None without.
    posterior
        What a surrogate search learned, None for other searches.
    proposals
        The proposals of the study: they hold the predicted capacity of each trial.

    Returns
    -------
    list[str]
    """
    ranked = [row["trial_id"] for row in rank(outcomes, posterior)]
    predicted = posterior.kinds if posterior else ()
    kinds = best_of_kinds(study, outcomes, ranked, confirmation, predicted)
    sentence = other_kind_sentence(kinds)
    if sentence is None:
        return []
    errors = prediction_errors(kinds, outcomes, proposals)
    return [f"next best {sentence} {errors}" if errors else f"next best {sentence}"]
