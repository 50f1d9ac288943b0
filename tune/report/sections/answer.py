"""Compute the answer of a study: the best feasible configuration, or how far the closest one missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.shuffles import NEAR_FRAC
from tune.analysis.slo import figure_s
from tune.records.confirmation import SUFFIX, Confirmation
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import describe_capacity, describe_cost, is_capacity_search
from tune.report.confirmation_text import confirm_command, confirmation_note
from tune.report.sections.tiles import Tile, answer_tiles
from tune.report.trial_status import baseline_trial, limit_shares, tightest_limit
from tune.report.verdict_robustness import is_uncertain, verdict_notes, verdict_over_shuffles
from tune.spec.space import Dimension, FloatDimension, IntDimension, OrderedDimension, Value


@dataclass(frozen=True)
class Answer:
    """Hold a sentence, its figures, notes, and the command that measures the configuration again.

    `is_feasible` is False if no configuration held every limit.
    """

    is_feasible: bool
    sentence: str
    tiles: tuple[Tile, ...]
    notes: tuple[str, ...]
    command: str | None


def answer(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmation: Confirmation | None = None,
) -> Answer:
    """Return the answer of a study.

    `outcomes` holds each trial once; `ranked` lists the ids of measured trials, best first.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    measured = [by_id[trial_id] for trial_id in ranked]
    if not measured:
        return _nothing_measured(study, outcomes)
    if measured[0].feasible:
        return _best(study, outcomes, measured[0], confirmation)
    return _closest(study, next((o for o in measured if o.valid), measured[0]))


def _best(
    study: StudyRecord, outcomes: Sequence[Outcome], best: Outcome, confirmation: Confirmation | None
) -> Answer:
    """Return the answer for a study whose best trial is feasible."""
    sentence = (
        f"{formatting.describe_configuration(best, study.space)} at {formatting.rate(best.target_qps)}: "
        f"{formatting.format_figure(best.output_tps_per_gpu, 4)} output tokens/s/GPU, "
        f"{_latencies(study, best)}."
    )
    if is_uncertain(best, study.slo):
        verdict = verdict_over_shuffles(best, study.slo)
        sentence += f" {verdict[0].upper()}{verdict[1:]}."
    if confirmation:
        sentence += f" {confirmation_note(study, outcomes, confirmation, best.trial_id)}"
    notes = [
        *_capacity_note(best),
        *verdict_notes(outcomes, best, study.slo, study.space),
        _tightest_note(best),
        *_bottleneck_notes(best),
        *_baseline_notes(study, outcomes, best),
        *_edge_notes(study, best),
    ]
    if study.space and len(outcomes) < study.n_trials:
        notes.append(
            f"{len(outcomes):,} of {study.n_trials:,} planned trials are listed: the others repeat a listed "
            "configuration, have not run, or were left out because the search expected too little gain."
        )
    if study.name.endswith(SUFFIX):
        confirmed_study = study.name.removesuffix(SUFFIX)
        notes.append(f"These trials are repeats: the report of {confirmed_study} shows the confirmation.")
    elif confirmation is None and study.search.name != "grid" and len(outcomes) > 1:
        notes.append(
            "The best of many trials is partly the luckiest one, so its figures are probably too good. For a "
            "rate to rely on, measure the best configurations again on new deployments: "
            f"{confirm_command(study)}."
        )
    return Answer(True, sentence, answer_tiles(study, outcomes, best), tuple(notes), _command(best))


def _closest(study: StudyRecord, top: Outcome) -> Answer:
    """Return the answer for a study without a feasible trial: `top` missed its limits by the least."""
    missed = {name: share - 1 for name, share in limit_shares(top).items() if share > 1}
    misses = ", ".join(
        f"{name} by {formatting.format_figure(share * 100)} %" for name, share in missed.items()
    )
    if not misses:
        misses = top.reason or "the verdict needs more queries than were measured"
    sentence = (
        "No configuration held every limit. The closest, "
        f"{formatting.describe_configuration(top, study.space)} at {formatting.rate(top.target_qps)}, "
        f"missed: {misses} ({_latencies(study, top)})."
    )
    notes = [
        *_capacity_note(top),
        *verdict_notes([], top, study.slo, study.space),
        *_bottleneck_notes(top),
    ]
    if not missed:
        notes.append(
            "Run it longer: a short run proves that a limit holds only if it stays well below the limit."
        )
    return Answer(False, sentence, answer_tiles(study, [top], top), tuple(notes), _command(top))


def _nothing_measured(study: StudyRecord, outcomes: Sequence[Outcome]) -> Answer:
    """Return the answer for a study without a measured trial."""
    if not outcomes:
        sentence = f"No trial is recorded yet; {study.n_trials:,} are planned."
        return Answer(False, sentence, (), ("Run the study with the command under Provenance.",), None)
    reasons = Counter(o.reason or "no reason recorded" for o in outcomes)
    reason, reason_count = reasons.most_common(1)[0]
    failed = sum(o.status == "failed" for o in outcomes)
    parts = {"failed": failed, "could not run as configured": len(outcomes) - failed}
    clauses = [f"{formatting.plural(count, 'trial')} {verb}" for verb, count in parts.items() if count]
    sentence = f"Nothing was measured: {' and '.join(clauses)}."
    notes = [f"The most frequent reason, {reason_count:,} of {len(outcomes):,}: {reason}"]
    if failed:
        notes.append(
            "A failed trial shows nothing about its configuration: remove the cause and run the study again."
        )
    if failed < len(outcomes):
        notes.append(
            "To avoid configurations that cannot run, change the search space or the fixed settings."
        )
    return Answer(False, sentence, (), tuple(notes), None)


def _latencies(study: StudyRecord, outcome: Outcome) -> str:
    """Return the figure of every limit that is shown, each with its limit unless that is lifted."""
    limits_s = dict(study.slo.limits)
    phrases = []
    for limit in study.slo.shown:
        value = formatting.format_latency(
            limit.latency, figure_s(limit, getattr(outcome, limit.latency.field))
        )
        allowed = f" of {limit.show(limits_s[limit])}" if limit in limits_s else ""
        phrases.append(f"{limit.label} {value}{allowed}")
    return ", ".join(phrases)


def _capacity_note(top: Outcome) -> list[str]:
    """Return the rates that a capacity search found and its cost; nothing if one rate was measured."""
    if not is_capacity_search(top):
        return []
    return [f"Capacity search on one deployment: {describe_capacity(top)}. Cost: {describe_cost(top)}."]


def _bottleneck_notes(top: Outcome) -> list[str]:
    """Return the bottleneck and what to try; nothing if no bottleneck is recorded."""
    if top.bottleneck is None:
        return []
    recommendations = "; ".join(
        f"{recommendation.text} ({' '.join(recommendation.overrides)})"
        if recommendation.overrides
        else recommendation.text
        for recommendation in top.bottleneck.recommendations
    )
    notes = [f"To try: {recommendations}."]
    _, *evidence = top.bottleneck.evidence.split("; ")  # the first part repeats the tightest limit
    if evidence:
        name = formatting.BOTTLENECK_NAMES[top.bottleneck.kind]
        notes.insert(0, f"Bottleneck: {name}. {'; '.join(evidence)}.")
    return notes


def _tightest_note(best: Outcome) -> str:
    """Return how much of each latency limit the best trial uses, the tightest limit first."""
    tightest = tightest_limit(best)
    if tightest is None:
        return "No latency limit is set: the ranking is by output tokens/s/GPU only."
    name, share = tightest
    shares = limit_shares(best).items()
    others = "".join(f"; {other} uses {used * 100:.0f} %" for other, used in shares if other != name)
    if share < 1 - NEAR_FRAC:
        return (
            f"No limit is near: {name}, the tightest, uses {share * 100:.0f} % of its limit{others}. Only a "
            "trial can show whether a higher rate holds: latency rises steeply at the edge of saturation."
        )
    return f"Tightest limit: {name} uses {share * 100:.0f} % of its limit{others}."


def _baseline_notes(study: StudyRecord, outcomes: Sequence[Outcome], best: Outcome) -> list[str]:
    """Return how the best trial compares with the baseline, and which settings differ."""
    baseline = baseline_trial(study, outcomes)
    if baseline is None:
        return []
    if baseline.trial_id == best.trial_id:
        return ["This is the baseline: no other trial beat it."] if len(outcomes) > 1 else []
    if baseline.output_tps_per_gpu is None:
        return [
            f"The baseline (trial {baseline.number}) was not measured: {baseline.reason or baseline.status}."
        ]
    held = "held every limit" if baseline.feasible else "violated the SLO"
    change = (best.output_tps_per_gpu or 0.0) / baseline.output_tps_per_gpu - 1
    notes = [
        f"{abs(change) * 100:.1f} % {'more' if change >= 0 else 'fewer'} output tokens/s/GPU than the "
        f"baseline, {formatting.describe_configuration(baseline, study.space)} at "
        f"{formatting.rate(baseline.target_qps)}, which {held}: "
        f"{formatting.format_figure(baseline.output_tps_per_gpu, 4)} tokens/s/GPU, "
        f"{_latencies(study, baseline)}."
    ]
    before, after = formatting.params(baseline), formatting.params(best)
    changed = [
        f"{name} {formatting.setting(before[name])} → {formatting.setting(value)}"
        for name, value in after.items()
        if name in before and before[name] != value
    ]
    return [*notes, f"Changed from the baseline: {', '.join(changed)}."] if changed else notes


def _edge_notes(study: StudyRecord, best: Outcome) -> list[str]:
    """Return the settings of the best trial that lie at an end of their range."""
    edges = []
    for name, value in formatting.params(best).items():
        dimension = study.space.get(name)
        ends = _ends(dimension)
        if ends and value in ends and ends[0] != ends[1]:
            edges.append(
                f"{name} = {formatting.setting(value)} ({'lowest' if value == ends[0] else 'highest'})"
            )
    return (
        [f"At the edge of the search space, so a wider one may give more: {', '.join(edges)}."]
        if edges
        else []
    )


def _ends(dimension: Dimension | None) -> tuple[Value, Value] | None:
    """Return the lowest and highest value, or None if the values have no order."""
    if isinstance(dimension, IntDimension | FloatDimension):
        return dimension.low, dimension.high
    return (dimension.values[0], dimension.values[-1]) if isinstance(dimension, OrderedDimension) else None


def _command(outcome: Outcome) -> str | None:
    """Return the command that measures a trial again, or None if its overrides were not recorded."""
    texts = formatting.overrides(outcome)
    return None if texts is None else formatting.command(texts)
