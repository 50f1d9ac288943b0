"""Describe what a confirmation found: the guaranteed rate of the best configurations, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tune.records.confirmation import (
    Confirmation,
    ConfirmedConfiguration,
    PredictedConfiguration,
    confirm_overrides,
)
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.accuracy_text import accuracy_figures
from tune.report.model_error_text import SimulatedChange, change_phrase
from tune.spec.backend_kinds import BACKEND_DECLARATIONS


def confirmation_sentence(study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation) -> str:
    """Return the guaranteed rate of the best configuration and how it was derived, or why there is none."""
    first = confirmation.configurations[0]
    name = configuration_names(study, outcomes, confirmation)[first.trial_id]
    deployments = formatting.plural(len(first.repeats), "new deployment")
    if first.capacity_qps is None:
        return f"No configuration held its SLO when it was measured again: {first.reason}."
    mean = f"the mean capacity of {deployments}"
    mean_rate = formatting.rate(first.capacity_qps.mean)
    if first.guaranteed_qps is None:
        return f"{name}: {mean} is {mean_rate}, but no rate is guaranteed: {first.reason}."
    interval = format_interval(first)
    return (
        f"Guaranteed at {format_confidence(confirmation.confidence_frac)} confidence: {name} holds its SLO "
        f"in one further full run at {formatting.rate(first.guaranteed_qps)}, "
        f"{formatting.format_figure(first.output_tps_per_gpu, 4)} output tokens/s/GPU. This is {mean}, "
        f"{mean_rate}{f' ({interval})' if interval else ''}, less "
        f"{format_share(first.margin_frac or 0.0)} for a deployment and a shuffle of its own."
        f"{_model_error(first)}"
    )


def _model_error(configuration: ConfirmedConfiguration) -> str:
    """Return a sentence on the simulator's own error, preceded by a space; empty on a real rack."""
    if configuration.model_error_frac is None:
        return ""
    return (
        f" The simulator's own error of {format_share(configuration.model_error_frac)} (90 % interval) comes "
        "on top: a real rack decides."
    )


def confirmation_note(
    study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation, best_id: str
) -> str:
    """Return the guaranteed rate as a sentence that follows a description of the trial `best_id`."""
    first = confirmation.configurations[0]
    if not first.guaranteed_qps:
        return confirmation_sentence(study, outcomes, confirmation)
    names = configuration_names(study, outcomes, confirmation)
    name = "it" if first.trial_id == best_id else names[first.trial_id]
    return (
        f"Confirmed on new deployments, at {format_confidence(confirmation.confidence_frac)} confidence: "
        f"{name} holds its SLO in one further full run at {formatting.rate(first.guaranteed_qps)}, "
        f"{formatting.format_figure(first.output_tps_per_gpu, 4)} output tokens/s/GPU.{_model_error(first)}"
    )


def expected_of_guaranteed(study: StudyRecord, confirmation: Confirmation) -> list[str]:
    """Return what a run at the guaranteed rate shows where it is simulated in several shuffles."""
    if BACKEND_DECLARATIONS[study.backend].capabilities.real_time:
        return []
    confidence = format_confidence(confirmation.confidence_frac)
    return [
        f"one full run holds with {confidence} confidence; every simulated shuffle is such a run, so the "
        "verdict may be 4 of 5"
    ]


def confirm_command(study: StudyRecord) -> str:
    """Return the shell command that confirms the best configurations of a study."""
    return formatting.command(confirm_overrides(study))


def configuration_names(
    study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation
) -> dict[str, str]:
    """Return a description of each confirmed configuration by trial_id.

    A trial that the study has no longer on record is named by its number.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    predicted = [each.predicted.outcome for each in confirmation.configurations if each.predicted]
    by_id |= {outcome.trial_id: outcome for outcome in predicted}
    return {
        configuration.trial_id: formatting.describe_configuration(by_id[configuration.trial_id], study.space)
        if configuration.trial_id in by_id
        else f"trial {configuration.number}"
        for configuration in confirmation.configurations
    }


def confirmation_notes(confirmation: Confirmation, names: Mapping[str, str]) -> list[str]:
    """Return notes on the repeats of the best configuration, on ties, on variation and on cost.

    `names` describes each configuration by trial_id.
    """
    first = confirmation.configurations[0]
    confidence, notes = format_confidence(confirmation.confidence_frac), []
    if first.guaranteed_qps:
        highest_qps = max((repeat.verified_qps or 0.0 for repeat in first.repeats), default=0.0)
        highest = f"; the highest verified rate is {formatting.rate(highest_qps)}" if highest_qps else ""
        notes.append(
            f"In {count_verified(first)} repeats a full run held at the guaranteed rate or a higher one"
            f"{highest}."
        )
    notes += accuracy_notes(confirmation)
    tied = [names[other.trial_id] for other in confirmation.configurations if other.tied]
    if tied:
        notes.append(f"Not distinguishable from the best at {confidence} confidence: {'; '.join(tied)}.")
    notes += [
        _prediction_note(each.predicted, each.mean_output_tps_per_gpu, names[each.trial_id])
        for each in confirmation.configurations
        if each.predicted
    ]
    if first.shuffle_sd_frac is not None:
        notes.append(
            f"The rate that one full run holds varies by {format_share(first.shuffle_sd_frac)} from shuffle "
            "to shuffle (sd, simulated)."
        )
    if confirmation.deployment_sd_frac is not None:
        notes.append(
            f"The capacity varies by {format_share(confirmation.deployment_sd_frac)} from deployment to "
            f"deployment (sd, {formatting.plural(confirmation.degrees_of_freedom, 'degree')} of freedom)."
        )
    study_hours = formatting.format_figure(confirmation.study_gpu_hours)
    hours = formatting.format_figure(confirmation.gpu_hours)
    return [*notes, f"The study spent {study_hours} GPU-hours, the confirmation {hours}."]


def _prediction_note(predicted: PredictedConfiguration, measured: float | None, name: str) -> str:
    """Return what the study expected of a configuration that it did not measure, and what was found."""
    expected = predicted.expected_output_tps_per_gpu
    median, low, high = (
        formatting.format_figure(value, 4) for value in (expected.median, expected.low, expected.high)
    )
    found = f"it gives {formatting.format_figure(measured, 4)}" if measured else "it has no mean capacity"
    return (
        f"The study did not measure {name}, and expected {median} output tokens/s/GPU at its capacity (90 % "
        f"interval: {low} to {high}); on new deployments {found}."
    )


def accuracy_notes(confirmation: Confirmation) -> list[str]:
    """Return what the accuracy run of the winner found; nothing without one."""
    check = confirmation.accuracy
    if check is None or check.accuracy is None:
        return []
    held = "held" if check.slo_met else "did not hold"
    verdict = "misses" if check.accuracy.missed else "meets"
    return [
        f"The winner's accuracy {verdict} the benchmark's targets: {accuracy_figures(check.accuracy)}. The "
        f"full run before it, on the same deployment, {held} its SLO."
    ]


def comparison_phrase(configuration: ConfirmedConfiguration) -> str:
    """Return how a configuration compares with the best, such as "loses 7.9 % (7.2 to 8.6 %) of ...".

    On a simulated rack the phrase ends with the simulator's own error of the difference. Without a comparison
    it is the reason why there is none.
    """
    if configuration.tied is None:
        return configuration.reason or formatting.DASH
    loss = configuration.loss
    if loss is None:
        return "not distinguishable from the best" if configuration.tied else "lower than the best"
    low, high = (f"{100 * share:.1f}" for share in (loss.low_frac, loss.high_frac))
    phrase = f"loses {100 * loss.mean_frac:.1f} % ({low} to {high} %) of the output tokens/s/GPU"
    if configuration.tied:
        phrase = f"not distinguishable from the best: {phrase}"
    if loss.model_error_frac is None:
        return phrase
    return f"{phrase}, {change_phrase(SimulatedChange(-loss.mean_frac, loss.model_error_frac))}"


def count_verified(configuration: ConfirmedConfiguration) -> str:
    """Return in how many repeats a full run held at the guaranteed rate or above, such as "2 of 3"."""
    return f"{configuration.slo_met_repeats} of {len(configuration.repeats)}"


def format_interval(configuration: ConfirmedConfiguration) -> str:
    """Return the interval of the mean capacity in queries/s, such as 16.1 to 16.8; empty if there is none."""
    mean = configuration.capacity_qps
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return f"{formatting.format_figure(mean.low, 4)} to {formatting.format_figure(mean.high, 4)}"


def format_share(share: float) -> str:
    """Return a share in percent of two digits: 0.95 as 95 %, 0.0304 as 3 %, 0.0034 as 0.34 %."""
    return f"{float(f'{share * 100:.2g}'):g} %"


def format_confidence(share: float) -> str:
    """Return a stated confidence in percent, with all of its digits: 0.995 as 99.5 %."""
    return f"{share * 100:g} %"
