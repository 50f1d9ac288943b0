"""What measuring the best configurations again came to, in words: for the page and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.records.confirmation import Confirmation, ConfirmedConfiguration, confirm_overrides
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting


@dataclass(frozen=True)
class ConfirmedRow:
    """A configuration in a line of texts."""

    name: str
    number: int
    repeats: str
    mean: str
    interval: str
    stated: str
    throughput: str
    held: str
    beside: str


@dataclass(frozen=True)
class ConfirmationSection:
    """What the page says of a confirmation. `command` is None where no rate is stated."""

    sentence: str
    confidence: str
    rows: tuple[ConfirmedRow, ...]
    notes: tuple[str, ...]
    command: str | None


def confirmation_section(
    study: StudyRecord, outcomes: Sequence[Outcome], found: Confirmation, best_id: str
) -> ConfirmationSection:
    """`outcomes` holds each trial of the study once; `best_id` names the first of its ranking."""
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    first, names = found.configurations[0], _names(study, by_id, found)
    return ConfirmationSection(
        sentence=confirmation_sentence(study, outcomes, found),
        confidence=_percent(found.confidence_frac),
        rows=tuple(_row(one, names[one.trial_id], first) for one in found.configurations),
        notes=(*_notes(found, names), *_late(study, by_id, found, best_id)),
        command=formatting.command(first.overrides) if first.guaranteed_qps else None,
    )


def confirmation_sentence(study: StudyRecord, outcomes: Sequence[Outcome], found: Confirmation) -> str:
    """The answer, with the rate that is stated and how sure it is."""
    first = found.configurations[0]
    name = _names(study, {o.trial_id: o for o in outcomes}, found)[first.trial_id]
    times = formatting.plural(len(first.repeats), "new deployment")
    if first.capacity_qps is None:
        return f"Measured again, no configuration holds its SLO: {first.reason}."
    mean = f"mean boundary {formatting.rate(first.capacity_qps.mean)} on {times}"
    if first.guaranteed_qps is None:
        return f"{name}: {mean}, but no rate is stated: {first.reason}."
    return (
        f"Confirmed: {name} holds {formatting.rate(first.guaranteed_qps)}, "
        f"{formatting.format_figure(first.output_tps_per_gpu, 4)} output tokens/s/GPU, at "
        f"{_percent(found.confidence_frac)} confidence: {mean}"
        f"{_between(first, ', ')}, less a margin of {_percent(first.margin_frac or 0.0)}."
    )


def confirmation_note(
    study: StudyRecord, outcomes: Sequence[Outcome], found: Confirmation, best_id: str
) -> str:
    """The same beside what is said of the trial `best_id`."""
    first = found.configurations[0]
    if not first.guaranteed_qps:
        return confirmation_sentence(study, outcomes, found)
    names = _names(study, {o.trial_id: o for o in outcomes}, found)
    name = "it" if first.trial_id == best_id else names[first.trial_id]
    return (
        f"Confirmed on new deployments, at {_percent(found.confidence_frac)} confidence: {name} holds "
        f"{formatting.rate(first.guaranteed_qps)}, {formatting.format_figure(first.output_tps_per_gpu, 4)} output tokens/s/GPU."
    )


def render_confirmation(study: StudyRecord, outcomes: Sequence[Outcome], found: Confirmation) -> str:
    """The same in a few aligned lines."""
    names = _names(study, {outcome.trial_id: outcome for outcome in outcomes}, found)
    first, *others = found.configurations
    lines = [f"stated    {confirmation_sentence(study, outcomes, found)}"]
    if others:
        lines += [f"beside    {_line(one, names[one.trial_id])}" for one in others]
    lines += [f"          {note}" for note in _notes(found, names)]
    if first.guaranteed_qps:
        lines.append(f"run it    {formatting.command(first.overrides)}")
    return "\n".join(lines)


def how_to_confirm(study: StudyRecord) -> str:
    return formatting.command(confirm_overrides(study))


def _names(study: StudyRecord, by_id: Mapping[str, Outcome], found: Confirmation) -> dict[str, str]:
    """In words, by trial_id; what the study has lost since goes by its number."""
    return {
        one.trial_id: formatting.describe_configuration(by_id[one.trial_id], study.space)
        if one.trial_id in by_id
        else f"trial {one.number}"
        for one in found.configurations
    }


def _row(one: ConfirmedConfiguration, name: str, first: ConfirmedConfiguration) -> ConfirmedRow:
    mean = one.capacity_qps
    return ConfirmedRow(
        name=name,
        number=one.number,
        repeats=_repeats(one),
        mean=f"{mean.mean:.4g}" if mean else formatting.NOTHING,
        interval=_between(one) or formatting.NOTHING,
        stated=f"{one.guaranteed_qps:.4g}" if one.guaranteed_qps else formatting.NOTHING,
        throughput=formatting.format_figure(one.output_tps_per_gpu, 4),
        held=_held(one) if one.guaranteed_qps else formatting.NOTHING,
        beside="the best" if one is first and mean else "tied" if one.tied else _beside(one),
    )


def _line(one: ConfirmedConfiguration, name: str) -> str:
    if one.capacity_qps is None or one.guaranteed_qps is None:
        mean = f"mean boundary {formatting.rate(one.capacity_qps.mean)}, " if one.capacity_qps else ""
        return f"{name} (trial {one.number}): {mean}no rate is stated: {one.reason}"
    return (
        f"{name} (trial {one.number}): {formatting.rate(one.guaranteed_qps)} stated, "
        f"{formatting.format_figure(one.output_tps_per_gpu, 4)} tokens/s/GPU, mean boundary "
        f"{formatting.rate(one.capacity_qps.mean)}{_between(one, ', ')}; {_beside(one)}"
    )


def _beside(one: ConfirmedConfiguration) -> str:
    if one.tied is None:
        return one.reason or formatting.NOTHING
    return "tied: cannot be told apart from the best" if one.tied else "lower"


def _repeats(one: ConfirmedConfiguration) -> str:
    """How many deployments, and how many of them say nothing."""
    silent = sum(repeat.capacity_qps is None for repeat in one.repeats)
    return f"{len(one.repeats)}, {silent} without a boundary" if silent else str(len(one.repeats))


def _held(one: ConfirmedConfiguration) -> str:
    return f"{one.slo_held_repeats} of {len(one.repeats)}"


def _between(one: ConfirmedConfiguration, before: str = "") -> str:
    """16.1 to 16.8; nothing where there is no interval."""
    mean = one.capacity_qps
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return f"{before}{formatting.format_figure(mean.low, 4)} to {formatting.format_figure(mean.high, 4)}"


def _notes(found: Confirmation, names: Mapping[str, str]) -> list[str]:
    first = found.configurations[0]
    sure, notes = _percent(found.confidence_frac), []
    if first.guaranteed_qps:
        highest_qps = max((one.verified_qps or 0.0 for one in first.repeats), default=0.0)
        highest = f"; the highest that held: {formatting.rate(highest_qps)}" if highest_qps else ""
        notes.append(
            f"A run of full length held at the stated rate or above in {_held(first)} repeats{highest}."
        )
    if first.next_deployment_qps:
        notes.append(
            f"One more deployment should hold {formatting.rate(first.next_deployment_qps)}, at {sure} confidence."
        )
    tied = [names[one.trial_id] for one in found.configurations if one.tied]
    if tied:
        notes.append(f"Cannot be told apart from it at {sure} confidence: {'; '.join(tied)}.")
    if found.deployment_sd_frac is not None:
        notes.append(
            f"From deployment to deployment the boundary differs by {_percent(found.deployment_sd_frac)} "
            f"(sd, {formatting.plural(found.degrees_of_freedom, 'degree')} of freedom)."
        )
    spent = f"{formatting.format_figure(found.study_gpu_hours)} GPU-hours were spent by the study"
    return [*notes, f"{spent}, {formatting.format_figure(found.gpu_hours)} by the confirmation."]


def _late(study: StudyRecord, by_id: Mapping[str, Outcome], found: Confirmation, best_id: str) -> list[str]:
    """Whether the best trial came after the confirmation."""
    best = by_id.get(best_id)
    if best is None or best_id in {one.trial_id for one in found.configurations}:
        return []
    return [
        f"The first of the ranking, trial {best.number}, is not among them: it was not one of the best then. "
        f"{how_to_confirm(study)} measures it again."
    ]


def _percent(share: float) -> str:
    """0.95 as 95 %, 0.0304 as 3 %, 0.0034 as 0.34 %."""
    return f"{float(f'{share * 100:.2g}') if share < 0.1 else share * 100:g} %"
