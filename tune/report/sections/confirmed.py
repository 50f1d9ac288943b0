"""Compute the section of the page about the confirmation: the best configurations, measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.confirmation_text import (
    comparison_phrase,
    configuration_names,
    confirm_command,
    confirmation_notes,
    confirmation_sentence,
    count_verified,
    format_confidence,
    format_interval,
)


@dataclass(frozen=True)
class ConfirmedRow:
    """Hold the texts of one confirmed configuration; rates are in queries/s."""

    name: str
    trial: str
    repeats: str
    mean: str
    interval: str
    guaranteed: str
    throughput: str
    verified: str
    comparison: str


@dataclass(frozen=True)
class ConfirmationSection:
    """Hold what the page shows of a confirmation beside the answer."""

    sentence: str
    confidence: str
    rows: tuple[ConfirmedRow, ...]
    notes: tuple[str, ...]


def confirmation_section(
    study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation, best_id: str
) -> ConfirmationSection:
    """Return the section for a confirmation.

    `outcomes` holds each trial of the study once; `best_id` is the id of the first trial of its ranking.
    """
    first, names = confirmation.configurations[0], configuration_names(study, outcomes, confirmation)
    rows = tuple(
        _row(configuration, names[configuration.trial_id], first)
        for configuration in confirmation.configurations
    )
    return ConfirmationSection(
        sentence=confirmation_sentence(study, outcomes, confirmation),
        confidence=format_confidence(confirmation.confidence_frac),
        rows=rows,
        notes=(
            *confirmation_notes(confirmation, names),
            *_unconfirmed_best(study, outcomes, confirmation, best_id),
        ),
    )


def _row(configuration: ConfirmedConfiguration, name: str, first: ConfirmedConfiguration) -> ConfirmedRow:
    """Return the row of a configuration; `first` is the best one."""
    mean, guaranteed_qps = configuration.capacity_qps, configuration.guaranteed_qps
    return ConfirmedRow(
        name=name,
        trial="not measured before" if configuration.predicted else str(configuration.number),
        repeats=_count_repeats(configuration),
        mean=f"{mean.mean:.4g}" if mean else formatting.DASH,
        interval=format_interval(configuration) or formatting.DASH,
        guaranteed=f"{guaranteed_qps:.4g}" if guaranteed_qps else formatting.DASH,
        throughput=formatting.format_figure(configuration.output_tps_per_gpu, 4),
        verified=count_verified(configuration) if guaranteed_qps else formatting.DASH,
        comparison="the best" if configuration is first and mean else comparison_phrase(configuration),
    )


def _count_repeats(configuration: ConfirmedConfiguration) -> str:
    """Return the number of deployments, and how many of them give no capacity estimate."""
    without = sum(repeat.capacity_qps is None for repeat in configuration.repeats)
    total = len(configuration.repeats)
    return f"{total}, {without} without a capacity estimate" if without else str(total)


def _unconfirmed_best(
    study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation, best_id: str
) -> list[str]:
    """Return a note if the trial that is best now was not confirmed."""
    best = next((outcome for outcome in outcomes if outcome.trial_id == best_id), None)
    confirmed_ids = {configuration.trial_id for configuration in confirmation.configurations}
    if best is None or best_id in confirmed_ids:
        return []
    return [
        f"Trial {best.number}, now first in the ranking, is not among them: it was not one of the best when "
        f"they were chosen. {confirm_command(study)} measures it again."
    ]
