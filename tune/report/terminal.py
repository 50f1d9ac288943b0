"""Render outcomes, studies, posteriors and confirmations as lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tune.analysis.ranking import rank
from tune.analysis.slo import MULTIPLE, figure_s, share_text
from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Bottleneck, Outcome, Recommendation
from tune.records.posterior_summary import PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.accuracy_text import accuracy_figures
from tune.report.backend_label import backend_label
from tune.report.capacity_text import describe_capacity, describe_cost, is_capacity_search, probe_lines
from tune.report.confirmation_text import (
    comparison_phrase,
    configuration_names,
    confirmation_notes,
    confirmation_sentence,
    expected_of_guaranteed,
    format_interval,
)
from tune.report.formatting import BOTTLENECK_NAMES, format_figure, format_latency, quoted
from tune.report.kind_label import kind_label
from tune.report.model_error_text import model_error_sentence
from tune.report.other_kind_text import other_kind_lines
from tune.report.posterior_text import gain_sentence, names_of
from tune.report.recommended import closed_loop_note
from tune.report.rival_text import rival_sentence
from tune.report.run_check_text import off_phrases, summarise_checks
from tune.report.study_end_text import describe_end
from tune.report.trial_status import describe_verdict
from tune.report.verdict_robustness import (
    latencies_over_shuffles,
    throughput_note,
    verdict_over_shuffles,
)
from tune.spec.load import Slo
from tune.spec.metrics import LATENCIES, OUTPUT_TPS_PER_GPU, SHOWN_LIMITS, TTFT, TTFT_P99, LatencyMetric

_NONE_BEST = "not asked of trials of different racks, models, workloads or SLOs; action=report lists them"


def render_outcome(outcome: Outcome, slo: Slo, study: StudyRecord) -> str:
    """Render one trial in a few aligned lines.

    Parameters
    ----------
    outcome
        The record of the trial.
    slo
        The limits that its latencies are compared with.
    study
        The study of the trial: it names the backend.

    Returns
    -------
    str
        Lines without a final newline; one line with the reason follows the head if nothing was measured.
    """
    kind, backend = kind_label(outcome, study) or "", backend_label(study.backend, study.engine)
    head = f"{kind}  {outcome.load}  {backend.name}  trial {outcome.trial_id}"
    if outcome.status != "measured":
        return f"{head}\n{outcome.status:<9} {outcome.reason}"
    workload = outcome.provenance.get("workload")
    lines = [
        head.strip(),
        *([f"workload  {workload}"] if workload else []),
        f"output    {format_figure(outcome.output_tps_per_gpu, 4)} {OUTPUT_TPS_PER_GPU.unit} "
        f"({format_figure(outcome.output_tps, 5)} tokens/s over {outcome.gpus} GPUs)",
        *([f"          {note}"] if (note := throughput_note(outcome)) else []),
        *(
            f"{metric.label:<9} {_latency(metric, outcome)}{_limit(metric, outcome, slo)}"
            for metric in LATENCIES
        ),
    ]
    lines += [f"limit     {line}" for line in _further_lines(outcome, slo)]
    lines += [
        f"LoadGen   {probe.loadgen_result}"
        + (f", {format_figure(probe.loadgen_tps, 5)} tokens/s by its own count" if probe.loadgen_tps else "")
        for probe in outcome.probes
        if probe.loadgen_result and probe.full
    ]
    if outcome.concurrency is not None:
        lines.append(f"LoadGen   {closed_loop_note(outcome)}")
    if outcome.accuracy:
        lines.append(f"accuracy  {accuracy_figures(outcome.accuracy)}")
    lines.append(f"verdict   {describe_verdict(outcome)}")
    if is_capacity_search(outcome):
        lines.append(f"capacity  {describe_capacity(outcome)}")
        lines.append(f"          {describe_cost(outcome)}")
        lines += [f"probe {line}" for line in probe_lines(outcome, slo)]
    if outcome.spread:
        lines.append(f"shuffles  {verdict_over_shuffles(outcome, slo)}")
        lines += [f"          {line}" for line in latencies_over_shuffles(outcome.spread)]
    if outcome.model_error:
        lines.append(f"model     {model_error_sentence(outcome.model_error)}")
    if outcome.checks:
        lines.append(f"checked   {summarise_checks(outcome.checks)}")
        lines += [f"          {phrase}" for phrase in off_phrases(outcome)]
    if outcome.bottleneck:
        lines += _bottleneck_lines(outcome.bottleneck)
    return "\n".join(lines)


def _bottleneck_lines(bottleneck: Bottleneck) -> list[str]:
    """Return the bottleneck, a line for each piece of evidence, and a line for each recommendation."""
    evidence = bottleneck.evidence.split("; ")
    return [
        f"bottleneck: {BOTTLENECK_NAMES[bottleneck.kind]}",
        *(f"          {line}" for line in evidence),
        *(f"try       {_recommendation(recommendation)}" for recommendation in bottleneck.recommendations),
    ]


def _recommendation(recommendation: Recommendation) -> str:
    """Return a recommendation with the overrides that apply it."""
    overrides = " ".join(quoted(text) for text in recommendation.overrides)
    return f"{recommendation.text}: {overrides}" if overrides else recommendation.text


def render_status(
    study: StudyRecord,
    proposals: Sequence[Proposal],
    outcomes: Sequence[Outcome],
    posterior: PosteriorSummary | None = None,
    *,
    alike: bool = True,
) -> str:
    """Render the state of a study: trials done and open, GPU-hours, the best so far, what was learned.

    Parameters
    ----------
    study
        The record of the study.
    proposals
        Everything proposed so far; a trial may be proposed more than once.
    outcomes
        The trials on record.
    posterior
        What a surrogate search learned, or None for other searches.
    alike
        Whether the trials have one rack, model, workload and SLO, so that one may be the best.

    Returns
    -------
    str
        Aligned lines without a final newline.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    recorded = {outcome.trial_id for outcome in outcomes}
    unfinished = len({p.trial_id for p in proposals} - recorded)
    spent = sum(outcome.gpu_hours for outcome in outcomes)
    budget = "" if study.max_gpu_hours is None else f" of {study.max_gpu_hours:g}"
    done = sum(proposal.trial_id in recorded for proposal in proposals)
    lines = [
        f"study     {study.name}: {study.question}",
        f"backend   {backend_label(study.backend, study.engine).name}, {study.nodes} nodes x "
        f"{study.gpus_per_node} {study.hardware}",
        ", ".join(
            [
                f"trials    {done} of {study.n_trials} done",
                *(f"{count} {status}" for status, count in sorted(counts.items())),
                *([f"{unfinished} proposed and not recorded"] if unfinished else []),
            ]
        ),
        f"spent     {spent:.0f}{budget} GPU-hours",
        f"best      {_best(outcomes, posterior) if alike else _NONE_BEST}",
        *(other_kind_lines(study, outcomes, None, posterior, proposals) if alike else ()),
        *([f"ended     {ended}"] if (ended := describe_end(study)) else []),
    ]
    if posterior is not None:
        lines.append(render_posterior(study, outcomes, posterior))
    return "\n".join(lines)


def _best(outcomes: Sequence[Outcome], posterior: PosteriorSummary | None) -> str:
    """Return throughput, p99 TTFT and number of the best feasible trial, or that there is none yet."""
    best = next((row for row in rank(outcomes, posterior) if row["feasible"]), None)
    if best is None:
        return "no feasible trial yet"
    held = (
        f", SLO held in {best['slo_met_shuffles']} of {best['shuffles']} shuffles" if best["shuffles"] else ""
    )
    return (
        f"{format_figure(best['output_tps_per_gpu'], 4)} {OUTPUT_TPS_PER_GPU.unit}, "
        f"{TTFT_P99.label} {format_latency(TTFT, best[TTFT_P99.key])}{held}: "
        f"trial {best['number']} ({best['trial_id']})"
    )


def render_posterior(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    posterior: PosteriorSummary,
    *,
    is_confirmed: bool = False,
) -> str:
    """Render which parameters the trials determined, the gain of another trial, and what is not decided.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    posterior
        What the search learned. Factors multiply the simulator's calibrated values.
    is_confirmed
        Whether a confirmation has decided between the trials.

    Returns
    -------
    str
        Aligned lines without a final newline.
    """
    pinned, unchanged = names_of(posterior, "pinned down"), names_of(posterior, "unchanged")
    lines = [f"learned   {', '.join(pinned) or 'no parameter is pinned down yet'}"]
    if pinned:
        lines.append("          as factors on the calibrated values, with 90 % intervals")
    if unchanged:
        lines.append(f"          almost nothing about {', '.join(unchanged)}")
    lines.append(f"next      {gain_sentence(posterior)}")
    rival = None if is_confirmed else rival_sentence(study, outcomes, posterior)
    if rival:
        lines.append(f"unsure    {rival}")
    return "\n".join(lines)


def render_confirmation(study: StudyRecord, outcomes: Sequence[Outcome], confirmation: Confirmation) -> str:
    """Render a confirmation: the guaranteed rate, the other configurations, notes, and a command.

    Parameters
    ----------
    study
        The study whose best configurations were measured again.
    outcomes
        The trials of that study: they describe the configurations.
    confirmation
        What the repeats show.

    Returns
    -------
    str
        Aligned lines without a final newline; the command is left out if no rate is guaranteed.
    """
    names = configuration_names(study, outcomes, confirmation)
    first, *others = confirmation.configurations
    lines = [f"confirm   {confirmation_sentence(study, outcomes, confirmation)}"]
    lines += [f"compared  {_confirmed_line(other, names[other.trial_id])}" for other in others]
    lines += [f"          {note}" for note in confirmation_notes(confirmation, names)]
    if first.guaranteed_qps:
        lines.append(f"run it    {formatting.command(first.overrides)}")
        lines += [f"          {expected}" for expected in expected_of_guaranteed(study, confirmation)]
    return "\n".join(lines)


def _confirmed_line(configuration: ConfirmedConfiguration, name: str) -> str:
    """Return the rates of a configuration other than the best, and how it compares with the best."""
    trial = "not measured before" if configuration.predicted else f"trial {configuration.number}"
    head, mean = f"{name} ({trial})", configuration.capacity_qps
    if mean is None or configuration.guaranteed_qps is None:
        capacity = f"mean capacity {formatting.rate(mean.mean)}, " if mean else ""
        return f"{head}: {capacity}no rate is guaranteed: {configuration.reason}"
    interval = format_interval(configuration)
    return (
        f"{head}: {formatting.rate(configuration.guaranteed_qps)} guaranteed, "
        f"{format_figure(configuration.output_tps_per_gpu, 4)} tokens/s/GPU, mean capacity "
        f"{formatting.rate(mean.mean)}{f' ({interval})' if interval else ''}; "
        f"{comparison_phrase(configuration)}"
    )


def _latency(metric: LatencyMetric, outcome: Outcome) -> str:
    """Return mean, p50, p90 and p99 of a latency in its shown unit."""
    measured = outcome.statistics_of(metric)
    if measured is None:
        return "not measured"
    names = ("mean", "p50", "p90", "p99")
    return "  ".join(f"{name} {format_latency(metric, getattr(measured, name)):>8}" for name in names)


def _limit(metric: LatencyMetric, outcome: Outcome, slo: Slo) -> str:
    """Return the limit of a latency in SHOWN_LIMITS and its used share; empty if there is no limit."""
    used = outcome.constraints.used
    return "".join(
        f"  limit {format_latency(metric, limit_s)}, {_used(used[limit])}"
        for limit, limit_s in slo.limits
        if limit in SHOWN_LIMITS and limit.latency == metric and limit in used
    )


def _used(share: float) -> str:
    """Return the used share of a limit, such as "81% used", from twice the limit on "3.6 times as much"."""
    return f"{share:.0%} used" if share < MULTIPLE else f"{share_text(share)} as much"


def _further_lines(outcome: Outcome, slo: Slo) -> Iterator[str]:
    """Yield "mean TPOT 20.1 ms of 30 ms" for each limit that LoadGen does not know."""
    limits_s = dict(slo.limits)
    for limit in slo.further:
        value = format_latency(limit.latency, figure_s(limit, outcome.statistics_of(limit.latency)))
        yield f"{limit.label} {value} of {limit.show(limits_s[limit])}"
