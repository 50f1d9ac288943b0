"""Choose the one configuration that the page recommends: headline, figures and command all come from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import is_capacity_search
from tune.report.kind_label import kind_label


@dataclass(frozen=True)
class RecommendedConfiguration:
    """Hold the recommended configuration with the rate and the throughput that are stated for it.

    `trial` is its trial in the study, or its first repeat where the study did not measure it. `confirmed`
    holds its repeats on new deployments and is None before a confirmation; with it, rate, throughput and
    overrides are those of the guaranteed rate.
    """

    trial: Outcome
    label: str
    gpus: int
    rate_qps: float | None
    output_tps_per_gpu: float | None
    overrides: tuple[str, ...] | None
    confirmed: ConfirmedConfiguration | None

    @property
    def output_tps(self) -> float | None:
        """Return output tokens/s of all allocated GPUs."""
        return None if self.output_tps_per_gpu is None else self.output_tps_per_gpu * self.gpus


def recommended_configuration(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmation: Confirmation | None,
) -> RecommendedConfiguration | None:
    """Return the confirmed configuration if a rate is guaranteed, else the best trial; None if none held.

    Parameters
    ----------
    study
        The study.
    outcomes
        Its trials, each once.
    ranked
        The ids of measured trials, best first.
    confirmation
        The repeats of the best configurations, None before `action=confirm`.

    Returns
    -------
    RecommendedConfiguration | None
        The configuration with the rate that is stated for it.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    first = confirmation.configurations[0] if confirmation else None
    trial = first and (first.predicted.outcome if first.predicted else by_id.get(first.trial_id))
    if first and first.guaranteed_qps and trial:
        return RecommendedConfiguration(
            trial=trial,
            label=configuration_label(trial, study),
            gpus=first.gpus,
            rate_qps=first.guaranteed_qps,
            output_tps_per_gpu=first.output_tps_per_gpu,
            overrides=first.overrides,
            confirmed=first,
        )
    best = by_id[ranked[0]] if ranked else None
    if best is None or not best.feasible:
        return None
    texts = formatting.overrides(best)
    return RecommendedConfiguration(
        trial=best,
        label=configuration_label(best, study),
        gpus=best.gpus,
        rate_qps=verified_or_offered_qps(best),
        output_tps_per_gpu=best.output_tps_per_gpu,
        overrides=None if texts is None else tuple(texts),
        confirmed=None,
    )


def configuration_label(outcome: Outcome, study: StudyRecord) -> str:
    """Return split and parallelism, or the number of a trial without a recorded split."""
    return kind_label(outcome, study) or f"trial {outcome.number}"


def verified_or_offered_qps(outcome: Outcome) -> float | None:
    """Return the verified rate of a capacity search, otherwise the rate that was offered, if any."""
    verified_qps = outcome.capacity_qps.low
    return verified_qps if verified_qps and is_capacity_search(outcome) else outcome.target_qps


def load_at(rate_qps: float | None, outcome: Outcome) -> str:
    """Return the load in words: `rate_qps`, or the users of a trial that ran in a closed loop."""
    return outcome.load if rate_qps is None else f"{rate_qps:.4g} queries/s"


def closed_loop_note(outcome: Outcome) -> str:
    """Return what a closed loop did, and that LoadGen has no such scenario."""
    completed = formatting.format_figure(outcome.completed_qps, 4)
    return f"none: a closed loop of {outcome.load}, {completed} queries/s completed"
