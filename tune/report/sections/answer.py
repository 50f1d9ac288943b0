"""Compute the answer of a study: the recommended configuration, or how far the closest one missed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.range_ends import RangeEnd
from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import KindPosterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.configuration_kinds import BestOfKind, best_of_configurations, best_of_kinds
from tune.report.other_kind_text import other_kind_sentence, prediction_errors
from tune.report.recommended import (
    RecommendedConfiguration,
    configuration_label,
    load_at,
    recommended_configuration,
    verified_or_offered_qps,
)
from tune.report.sections.answer_notes import (
    answer_notes,
    baseline_fact,
    certainty_fact,
    closest_notes,
)
from tune.report.sections.best_by_kind import KindPicture, kind_picture
from tune.report.sections.tiles import Tile, closest_tiles, recommended_tiles
from tune.report.trial_status import baseline_trial, limit_shares, slo_clause, trial_status
from tune.report.verdict_robustness import expected_of_repeat

Fact = tuple[str, str]
"""Name of a fact and its text."""


@dataclass(frozen=True)
class Answer:
    """Hold what the first screen shows: headline, settings, large figures, facts, picture and command.

    `is_feasible` is False if no configuration held every limit. `notes` are for those who read on.
    """

    is_feasible: bool
    headline: str
    settings: str = ""
    tiles: tuple[Tile, ...] = ()
    facts: tuple[Fact, ...] = ()
    picture: KindPicture | None = None
    notes: tuple[str, ...] = ()
    command_title: str = ""
    command: str | None = None


def answer(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmation: Confirmation | None = None,
    predicted: Sequence[KindPosterior] = (),
    *,
    proposals: Sequence[Proposal] = (),
    ends: Sequence[RangeEnd] = (),
    running: bool = False,
) -> Answer:
    """Return the answer of a study; `running` says that it goes on.

    `outcomes` holds each trial once; `ranked` lists the ids of measured trials, best first; `predicted` is
    what a surrogate expects of each kind, and `proposals` hold what it expected of each trial. `ends` are
    those of ranges at which the recommended values lie.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    measured = [by_id[trial_id] for trial_id in ranked]
    recommended = recommended_configuration(study, outcomes, ranked, confirmation)
    kinds = best_of_kinds(study, outcomes, ranked, confirmation, predicted)
    drawn = kinds if len(kinds) > 1 else best_of_configurations(study, outcomes, ranked, confirmation)
    picture = kind_picture(study, outcomes, drawn)
    if not measured:
        return _nothing_measured(study, outcomes)
    if recommended is None:
        return _closest(
            study,
            outcomes,
            next((o for o in measured if o.valid), measured[0]),
            _so_far(study, outcomes, running),
            picture,
        )
    objection = confirmation.accuracy.objection if confirmation and confirmation.accuracy else None
    refused = f"The winner is not confirmed: {objection}." if objection else None
    errors = prediction_errors(kinds, outcomes, proposals)
    return Answer(
        is_feasible=refused is None,
        headline=_so_far(study, outcomes, running) + (refused or _headline(study, outcomes, recommended)),
        settings=_settings(study, recommended.trial),
        tiles=recommended_tiles(study, outcomes, recommended),
        facts=(
            *baseline_fact(study, outcomes, recommended),
            *_other_kind_fact(kinds),
            *_limits_fact(study, recommended),
            certainty_fact(study, recommended, confirmation),
            _cost_fact(study, outcomes, confirmation),
        ),
        picture=picture,
        notes=(
            *([errors] if errors else []),
            *answer_notes(study, outcomes, recommended, confirmation, ends),
        ),
        command_title=_command_title(recommended),
        command=None if recommended.overrides is None else formatting.command(recommended.overrides),
    )


def _command_title(recommended: RecommendedConfiguration) -> str:
    """Return what the command is for, and what to expect of it."""
    if recommended.confirmed:
        return "To run it at its guaranteed rate"
    expected = expected_of_repeat(recommended.trial)
    return f"To measure it again ({expected})" if expected else "To measure it again"


def _headline(study: StudyRecord, outcomes: Sequence[Outcome], recommended: RecommendedConfiguration) -> str:
    """Return what to deploy and what it gives, as a sentence for people who read nothing else."""
    load = load_at(recommended.rate_qps, recommended.trial)
    return (
        f"Deploy {describe_workers(recommended.label)}: "
        f"{formatting.format_figure(recommended.output_tps, 4)} output tokens/s, "
        f"{formatting.format_figure(recommended.output_tps_per_gpu, 4)} per GPU, at "
        f"{load}{_against_baseline(study, outcomes, recommended)}."
    )


def _so_far(study: StudyRecord, outcomes: Sequence[Outcome], running: bool) -> str:
    """Return the start of a headline that later trials may still change; empty for a study that ended."""
    return f"So far, after {len(outcomes):,} of {study.n_trials:,} trials: " if running else ""


def describe_workers(label: str) -> str:
    """Return a label such as 14P4D TP4/TP4 in words, followed by the label itself."""
    match = re.match(r"(\d+)P(\d+)D\b", label)
    if match is None:
        return label
    return f"{match[1]} prefill and {match[2]} decode workers ({label})"


def _against_baseline(
    study: StudyRecord, outcomes: Sequence[Outcome], recommended: RecommendedConfiguration
) -> str:
    """Return by how much the throughput exceeds the baseline's, as the end of a sentence."""
    baseline = baseline_trial(study, outcomes)
    if baseline is None:
        return ""
    if baseline.trial_id == recommended.trial.trial_id:
        return ", which is the baseline" if len(outcomes) > 1 else ""
    if not baseline.feasible or not baseline.output_tps_per_gpu or not recommended.output_tps_per_gpu:
        return f"; the baseline {slo_clause(baseline)}"
    change = recommended.output_tps_per_gpu / baseline.output_tps_per_gpu - 1
    return f", {abs(change) * 100:.1f} % {'more' if change >= 0 else 'less'} than the baseline"


def _settings(study: StudyRecord, outcome: Outcome) -> str:
    """Return the settings of the space beyond split and rate, empty if there are none."""
    label = formatting.split_label(outcome)
    text = formatting.describe_configuration(outcome, study.space)
    text = text.removeprefix(label or "").removeprefix(", ")
    return "" if text.startswith("trial ") else text


def _other_kind_fact(kinds: Sequence[BestOfKind]) -> list[Fact]:
    """Return what the best other split or parallelism gives; nothing where none is known."""
    sentence = other_kind_sentence(kinds)
    return [("Next best", sentence)] if sentence else []


def _limits_fact(study: StudyRecord, recommended: RecommendedConfiguration) -> list[Fact]:
    """Return the limits that a guaranteed rate holds; without one the tiles show them."""
    if not recommended.confirmed or not study.slo.limits:
        return []
    limits = ", ".join(f"{limit.label} within {limit.show(limit_s)}" for limit, limit_s in study.slo.limits)
    return [("Limits", f"{limits}.")]


def _cost_fact(study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation | None) -> Fact:
    """Return what the answer cost in trials and GPU-hours."""
    hours = sum(outcome.gpu_hours for outcome in outcomes)
    text = f"{formatting.plural(len(outcomes), 'trial')}, {formatting.format_figure(hours, 4)} GPU-hours"
    if confirmation:
        repeats = sum(len(configuration.repeats) for configuration in confirmation.configurations)
        text += (
            f"; {formatting.plural(repeats, 'repeat')} to confirm, "
            f"{formatting.format_figure(confirmation.gpu_hours, 4)} GPU-hours"
        )
    cost = backend_label(study.backend, study.engine).cost
    return "Cost", f"{text} {cost}." if cost else f"{text}."


def _closest(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    top: Outcome,
    so_far: str,
    picture: KindPicture | None,
) -> Answer:
    """Return the answer for a study without a feasible trial: `top` missed its limits by the least."""
    missed = {name: share - 1 for name, share in limit_shares(top).items() if share > 1}
    misses = ", ".join(
        f"{name} by {formatting.format_figure(share * 100)} %" for name, share in missed.items()
    )
    in_some = trial_status(top) == "some_shuffles"
    if in_some:
        result = slo_clause(top)
    elif misses:
        result = f"missed: {misses}"
    else:
        result = f"has no verdict: {top.reason or 'it needs more queries than were measured'}"
    headline = (
        f"{so_far}No configuration held every limit{' in every shuffle' if in_some else ''}. The closest, "
        f"{describe_workers(configuration_label(top, study))} at "
        f"{load_at(verified_or_offered_qps(top), top)}, {result}."
    )
    texts = formatting.overrides(top)
    return Answer(
        is_feasible=False,
        headline=headline,
        settings=_settings(study, top),
        tiles=closest_tiles(study, top),
        facts=(_cost_fact(study, outcomes, None),),
        picture=picture,
        notes=tuple(closest_notes(study, top, is_missed=in_some or bool(missed))),
        command_title="To measure it again",
        command=None if texts is None else formatting.command(texts),
    )


def _nothing_measured(study: StudyRecord, outcomes: Sequence[Outcome]) -> Answer:
    """Return the answer for a study without a measured trial."""
    if not outcomes:
        headline = f"No trial is recorded yet; {study.n_trials:,} are planned."
        return Answer(False, headline, notes=("Run the study with the command under Provenance.",))
    reasons = Counter(o.reason or "no reason recorded" for o in outcomes)
    reason, reason_count = reasons.most_common(1)[0]
    failed = sum(o.status == "failed" for o in outcomes)
    parts = {"failed": failed, "could not run as configured": len(outcomes) - failed}
    clauses = [f"{formatting.plural(count, 'trial')} {verb}" for verb, count in parts.items() if count]
    headline = f"Nothing was measured: {' and '.join(clauses)}."
    notes = [f"The most frequent reason, {reason_count:,} of {len(outcomes):,}: {reason}"]
    if failed:
        notes.append(
            "A failed trial shows nothing about its configuration: remove the cause and run the study again."
        )
    if failed < len(outcomes):
        notes.append(
            "To avoid configurations that cannot run, change the search space or the fixed settings."
        )
    return Answer(False, headline, notes=tuple(notes))
