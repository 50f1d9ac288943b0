"""The answer of a study: the best feasible configuration, or how far the closest one missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.shuffles import NEAR_FRAC
from tune.loadgen.latencies import p99_s
from tune.records.confirmation import SUFFIX, Confirmation
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting, further_limits
from tune.report.capacity_text import bracket, cost, searched
from tune.report.sections.confirmed import confirmation_note, how_to_confirm
from tune.report.trial_status import baseline_trial, tightest, used
from tune.report.verdict_robustness import is_uncertain, sd, verdict_note, verdict_over_orders
from tune.spec.space import Dimension, FloatDimension, IntDimension, OrderedDimension, Value


@dataclass(frozen=True)
class Tile:
    """One figure in large type. `share` of a limit is drawn as a bar; None draws none."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None


@dataclass(frozen=True)
class Answer:
    """A sentence, its figures, what to know beside it, and the command that measures it again."""

    found: bool
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
    """`outcomes` holds each trial once; `ranked` are the ids of the ranked ones, best first."""
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
    sentence = (
        f"{formatting.describe_configuration(best, study.space)} at {formatting.rate(best.target_qps)}: "
        f"{formatting.format_figure(best.output_tps_per_gpu, 4)} output tokens/s/GPU, {_latencies(study, best)}."
    )
    if is_uncertain(best, study.slo):
        sentence += f" It is {verdict_over_orders(best, study.slo)}."
    if confirmation:
        sentence += f" {confirmation_note(study, outcomes, confirmation, best.trial_id)}"
    notes = [
        *_searched(best),
        *verdict_note(outcomes, best, study.slo, study.space),
        _tightest(best),
        *_binding(best),
        *_against_incumbent(study, outcomes, best),
        *_edges(study, best),
    ]
    if study.space and len(outcomes) < study.n_trials:
        notes.append(
            f"{len(outcomes):,} of {study.n_trials:,} planned trials are listed: the others proposed one "
            "of these again, have not run, or were not worth what they cost."
        )
    if study.name.endswith(SUFFIX):
        notes.append(
            f"These are repeats: the report of {study.name.removesuffix(SUFFIX)} says what they came to."
        )
    elif confirmation is None and study.search.name != "grid" and len(outcomes) > 1:
        notes.append(
            "The winner of many trials is partly the luckiest: for a rate to rely on, measure the best again "
            f"on new deployments, {how_to_confirm(study)}."
        )
    return Answer(True, sentence, _tiles(study, outcomes, best), tuple(notes), _command(best))


def _closest(study: StudyRecord, top: Outcome) -> Answer:
    missed = {name: share - 1 for name, share in used(top).items() if share > 1}
    how = ", ".join(f"{name} by {formatting.format_figure(share * 100)} %" for name, share in missed.items())
    if not how:
        how = top.reason or "the verdict needs more queries than were measured"
    sentence = (
        f"No configuration held every limit. The closest, {formatting.describe_configuration(top, study.space)} at "
        f"{formatting.rate(top.target_qps)}, missed: {how} ({_latencies(study, top)})."
    )
    notes = [*_searched(top), *verdict_note([], top, study.slo, study.space), *_binding(top)]
    if not missed:
        notes.append(
            "Run it longer: a short run must hold a limit with room to spare to prove that it holds."
        )
    return Answer(False, sentence, _tiles(study, [top], top), tuple(notes), _command(top))


def _nothing_measured(study: StudyRecord, outcomes: Sequence[Outcome]) -> Answer:
    if not outcomes:
        sentence = f"No trial is recorded yet, of {study.n_trials:,} planned."
        return Answer(False, sentence, (), ("Run the study: the command stands under Provenance.",), None)
    reasons = Counter(o.reason or "no reason recorded" for o in outcomes)
    reason, count = reasons.most_common(1)[0]
    failed = sum(o.status == "failed" for o in outcomes)
    parts = {"failed": failed, "could not run as configured": len(outcomes) - failed}
    told = " and ".join(f"{formatting.plural(n, 'trial')} {what}" for what, n in parts.items() if n)
    sentence = f"Nothing was measured: {told}."
    notes = [f"The most frequent reason, {count:,} of {len(outcomes):,}: {reason}"]
    if failed:
        notes.append(
            "Failed trials say nothing of their configurations: mend the cause, run the study again."
        )
    if failed < len(outcomes):
        notes.append("Configurations that cannot run need another space or other fixed settings.")
    return Answer(False, sentence, (), tuple(notes), None)


def _latencies(study: StudyRecord, outcome: Outcome) -> str:
    text = f"p99 TTFT {formatting.seconds(p99_s(outcome.ttft_s))}"
    if study.slo.ttft_p99_s is not None:
        text += f" of {study.slo.ttft_p99_s:g} s"
    text += f", p99 TPOT {formatting.milliseconds(p99_s(outcome.tpot_s))}"
    if study.slo.tpot_p99_s is not None:
        text += f" of {study.slo.tpot_p99_s * 1e3:g} ms"
    return text + further_limits.figure_phrases(study.slo, outcome)


def _searched(top: Outcome) -> list[str]:
    """How the highest rate was bracketed and what that cost; nothing where one rate was asked."""
    return [f"Asked on one deployment: {bracket(top)}. {cost(top)}."] if searched(top) else []


def _binding(top: Outcome) -> list[str]:
    """What makes the tightest limit tight and what to try; nothing where that was not derived."""
    if top.bottleneck is None:
        return []
    tried = "; ".join(
        f"{relief.text} ({' '.join(relief.overrides)})" if relief.overrides else relief.text
        for relief in top.bottleneck.recommendations
    )
    _, *evidence = top.bottleneck.evidence.split("; ")
    behind = (
        [f"What binds it: {formatting.BINDS[top.bottleneck.kind]}. " + "; ".join(evidence)]
        if evidence
        else []
    )
    return [*(f"{text}." for text in behind), f"To try: {tried}."]


def _tightest(best: Outcome) -> str:
    tight = tightest(best)
    if tight is None:
        return "No limit was set, so none binds: the ranking is by tokens/s/GPU alone."
    name, share = tight
    others = "".join(f", {n} uses {s * 100:.0f} %" for n, s in used(best).items() if n != name)
    if share < 1 - NEAR_FRAC:
        return (
            f"No limit is near: {name}, the closest, uses {share * 100:.0f} % of its limit{others}. Whether "
            "a higher rate holds is for a trial to say: at the edge of saturation latency leaps."
        )
    return f"Binding constraint: {name}, at {share * 100:.0f} % of its limit{others}."


def _against_incumbent(study: StudyRecord, outcomes: Sequence[Outcome], best: Outcome) -> list[str]:
    start = baseline_trial(study, outcomes)
    if start is None:
        return []
    if start.trial_id == best.trial_id:
        return ["This is the baseline: no other trial beat it."] if len(outcomes) > 1 else []
    if start.output_tps_per_gpu is None:
        return [f"The baseline (trial {start.number}) was not measured: {start.reason or start.status}."]
    held = "held every limit" if start.feasible else "broke the SLO"
    change = (best.output_tps_per_gpu or 0.0) / start.output_tps_per_gpu - 1
    notes = [
        f"{abs(change) * 100:.1f} % {'more' if change >= 0 else 'fewer'} output tokens/s/GPU than the "
        f"baseline, {formatting.describe_configuration(start, study.space)} at {formatting.rate(start.target_qps)}, which {held}: "
        f"{formatting.format_figure(start.output_tps_per_gpu, 4)} tokens/s/GPU, {_latencies(study, start)}."
    ]
    before, after = formatting.params(start), formatting.params(best)
    changed = [
        f"{name} {formatting.setting(before[name])} → {formatting.setting(value)}"
        for name, value in after.items()
        if name in before and before[name] != value
    ]
    return [*notes, f"Changed from the baseline: {', '.join(changed)}."] if changed else notes


def _edges(study: StudyRecord, best: Outcome) -> list[str]:
    edges = []
    for name, value in formatting.params(best).items():
        dimension = study.space.get(name)
        ends = _ends(dimension)
        if ends and value in ends and ends[0] != ends[1]:
            edges.append(
                f"{name} = {formatting.setting(value)} ({'lowest' if value == ends[0] else 'highest'})"
            )
    return (
        [f"At the edge of the space, where a wider one may hold more: {', '.join(edges)}."] if edges else []
    )


def _ends(dimension: Dimension | None) -> tuple[Value, Value] | None:
    """Lowest and highest value; None where the values have no order."""
    if isinstance(dimension, IntDimension | FloatDimension):
        return dimension.low, dimension.high
    return (dimension.values[0], dimension.values[-1]) if isinstance(dimension, OrderedDimension) else None


def _tiles(study: StudyRecord, outcomes: Sequence[Outcome], top: Outcome) -> tuple[Tile, ...]:
    start = baseline_trial(study, outcomes)
    note = f"{formatting.format_figure(top.output_tps, 4)} tokens/s over {top.gpus} GPUs"
    if start and start is not top and start.output_tps_per_gpu and top.output_tps_per_gpu:
        change = top.output_tps_per_gpu / start.output_tps_per_gpu - 1
        note = f"{formatting.signed_percent(change)} against the baseline"
    shares = used(top)
    ttft, tpot = study.slo.ttft_p99_s, study.slo.tpot_p99_s
    ttft_p99, tpot_p99 = p99_s(top.ttft_s), p99_s(top.tpot_s)
    over = top.spread
    return (
        Tile("Output throughput", formatting.format_figure(top.output_tps_per_gpu, 4), "tokens/s/GPU", note),
        Tile(
            "p99 TTFT",
            formatting.format_figure(ttft_p99),
            "s",
            (f"limit {ttft:g} s" if ttft else "no limit")
            + sd(over.ttft_p99_s if over else None, formatting.seconds),
            shares.get("p99 TTFT"),
        ),
        Tile(
            "p99 TPOT",
            formatting.format_figure(tpot_p99 and tpot_p99 * 1e3),
            "ms",
            (f"limit {tpot * 1e3:g} ms" if tpot else "no limit")
            + sd(over.tpot_p99_s if over else None, formatting.milliseconds),
            shares.get("p99 TPOT"),
        ),
        *(Tile(*facts) for facts in further_limits.tile_facts(study.slo, top)),
        _rate_tile(top),
    )


def _rate_tile(top: Outcome) -> Tile:
    completed = f"{formatting.format_figure(top.completed_qps, 4)} QPS completed"
    found = top.capacity_qps
    if found.low is None or not searched(top):
        return Tile("Request rate", f"{top.target_qps:.4g}", "QPS offered", completed)
    bounds = {"missed": found.high, "boundary": found.estimate}
    notes = [f"{name} {qps:.4g}" for name, qps in bounds.items() if qps] or [completed]
    return Tile("Highest rate held", f"{found.low:.4g}", "QPS", ", ".join(notes))


def _command(outcome: Outcome) -> str | None:
    """The command of one configuration at its rate; None where its overrides were not recorded."""
    texts = formatting.overrides(outcome)
    return None if texts is None else formatting.command(texts)
