"""Outcomes and studies as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tune.analysis.ranking import rank
from tune.records.outcome import Outcome, Percentiles, Recommendation
from tune.records.posterior_summary import PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report.backend_label import backend_label
from tune.report.capacity_text import bracket, cost, probe_lines, searched
from tune.report.formatting import BINDS, format_figure, milliseconds, quoted, seconds
from tune.report.posterior_text import gain_sentence, names_of
from tune.report.verdict_robustness import figures_over_orders, verdict_over_orders
from tune.spec.load import Slo


def render_outcome(outcome: Outcome, slo: Slo, study: StudyRecord) -> str:
    """One trial of `study` in a few aligned lines."""
    split, backend = outcome.provenance.get("split", ""), backend_label(study.backend, study.engine)
    head = f"{split}  {outcome.target_qps:g} queries/s  {backend.name}  trial {outcome.trial_id}"
    if outcome.status != "measured":
        return f"{head}\n{outcome.status:<9} {outcome.reason}"
    lines = [
        head.strip(),
        f"output    {format_figure(outcome.output_tps_per_gpu, 4)} tokens/s/GPU "
        f"({format_figure(outcome.output_tps, 5)} tokens/s over {outcome.gpus} GPUs)",
        f"TTFT      {_latency(outcome.ttft_s, in_ms=False)}{_limit(outcome.ttft_s, slo.ttft_p99_s, False)}",
        f"TPOT      {_latency(outcome.tpot_s, in_ms=True)}{_limit(outcome.tpot_s, slo.tpot_p99_s, True)}",
        f"latency   {_latency(outcome.latency_s, in_ms=False)}",
    ]
    lines += [
        f"LoadGen   {probe.loadgen_result}"
        + (f", {format_figure(probe.loadgen_tps, 5)} tokens/s by its own count" if probe.loadgen_tps else "")
        for probe in outcome.probes
        if probe.loadgen_result and probe.full
    ]
    lines.append(f"verdict   {_verdict(outcome)}")
    if searched(outcome):
        lines.append(f"capacity  {bracket(outcome)}")
        lines.append(f"          {cost(outcome)}")
        lines += [f"probe {line}" for line in probe_lines(outcome)]
    if outcome.spread:
        lines.append(f"orders    {verdict_over_orders(outcome, slo)}")
        lines += [f"          {line}" for line in figures_over_orders(outcome.spread)]
    if outcome.binding:
        first, *more = outcome.binding.evidence.split("; ")
        lines.append(f"binds     {BINDS[outcome.binding.binds]}: {first}")
        lines += [f"          {line}" for line in more]
        lines += [f"try       {_try(relief)}" for relief in outcome.binding.relief]
    return "\n".join(lines)


def _verdict(outcome: Outcome) -> str:
    if outcome.feasible:
        return "holds its SLO"
    if outcome.capacity_qps.censored:
        return outcome.reason or "given up"
    return f"{'SLO broken' if outcome.valid else 'not valid'}: {outcome.reason}"


def _try(relief: Recommendation) -> str:
    overrides = " ".join(quoted(text) for text in relief.overrides)
    return f"{relief.text}: {overrides}" if overrides else relief.text


def render_status(
    study: StudyRecord,
    proposals: Sequence[Proposal],
    outcomes: Sequence[Outcome],
    belief: PosteriorSummary | None = None,
) -> str:
    """What a study has done, what waits, what it spent, the best so far, what its search learned."""
    counts = Counter(outcome.status for outcome in outcomes)
    recorded = {outcome.trial_id for outcome in outcomes}
    unfinished = len({p.trial_id for p in proposals} - recorded)
    spent = sum(outcome.gpu_hours for outcome in outcomes)
    budget = "" if study.max_gpu_hours is None else f" of {study.max_gpu_hours:g}"
    told = sum(proposal.trial_id in recorded for proposal in proposals)
    lines = [
        f"study     {study.name}: {study.question}",
        f"place     {backend_label(study.backend, study.engine).name}, {study.nodes} nodes x {study.gpus_per_node} "
        f"{study.hardware}",
        ", ".join(
            [
                f"trials    {told} of {study.n_trials} done",
                *(f"{count} {status}" for status, count in sorted(counts.items())),
                *([f"{unfinished} proposed and not recorded"] if unfinished else []),
            ]
        ),
        f"spent     {spent:.0f}{budget} GPU-hours",
    ]
    best = next((row for row in rank(outcomes, belief) if row["feasible"]), None)
    if best:
        held = (
            f", SLO held in {best['slo_held_shuffles']} of {best['orders']} orders" if best["orders"] else ""
        )
        lines.append(
            f"best      {format_figure(best['output_tps_per_gpu'], 4)} tokens/s/GPU, p99 TTFT "
            f"{seconds(best['ttft_p99_s'])}{held}: trial {best['number']} ({best['trial_id']})"
        )
    else:
        lines.append("best      none holds the SLO yet")
    if belief is not None:
        lines.append(render_posterior(belief))
    return "\n".join(lines)


def render_posterior(belief: PosteriorSummary) -> str:
    """What the trials told of the rack, what they did not, and what another one should gain: a line each."""
    pinned, untouched = names_of(belief, "pinned down"), names_of(belief, "untouched")
    lines = [f"learned   {', '.join(pinned) or 'no parameter is pinned down yet'}"]
    if untouched:
        lines.append(f"          next to nothing of {', '.join(untouched)}")
    return "\n".join([*lines, f"next      {gain_sentence(belief)}"])


def _latency(measured: Percentiles | None, in_ms: bool) -> str:
    if measured is None:
        return "not measured"
    show = milliseconds if in_ms else seconds
    names = ("mean", "p50", "p90", "p99")
    return "  ".join(f"{name} {show(getattr(measured, name)):>8}" for name in names)


def _limit(measured: Percentiles | None, limit_s: float | None, in_ms: bool) -> str:
    if measured is None or limit_s is None:
        return ""
    show = milliseconds if in_ms else seconds
    return f"  limit {show(limit_s)}, {measured.p99 / limit_s:.0%} used"
