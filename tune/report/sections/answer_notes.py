"""Write the facts and notes that stand below the headline of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from tune.analysis.hold_probability import hold_probability
from tune.analysis.model_error_sources import covered_frac
from tune.analysis.range_ends import RangeEnd
from tune.analysis.shuffles import NEAR_FRAC
from tune.analysis.slo import figure_s, share_text
from tune.records.confirmation import SUFFIX, Confirmation
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import describe_capacity, describe_cost, is_capacity_search
from tune.report.confirmation_text import (
    confirm_command,
    confirmation_sentence,
    format_confidence,
    format_share,
)
from tune.report.model_error_text import change_phrase, model_error_sentence, simulated_change
from tune.report.range_end_text import describe_ends, describe_final_ends, widening_command
from tune.report.recommended import (
    RecommendedConfiguration,
    configuration_label,
    load_at,
    verified_or_offered_qps,
)
from tune.report.run_check_text import off_phrases
from tune.report.study_end_text import describe_end
from tune.report.trial_status import baseline_trial, limit_shares, slo_clause, tightest_limit
from tune.report.verdict_robustness import is_uncertain, verdict_notes


def measured_latencies(study: StudyRecord, outcome: Outcome) -> str:
    """Return the figure of every limit that is shown, such as "p99 TTFT 3.57 s of 4.5 s (79 %)"."""
    limits_s, shares = dict(study.slo.limits), limit_shares(outcome)
    phrases = []
    for limit in study.slo.shown:
        value = formatting.format_latency(
            limit.latency, figure_s(limit, outcome.statistics_of(limit.latency))
        )
        share = shares.get(limit.label)
        allowed = f" of {limit.show(limits_s[limit])}" if limit in limits_s else ", no limit"
        used = "" if share is None else f" ({share_text(share).removesuffix(' of')})"
        phrases.append(f"{limit.label} {value}{allowed}{used}")
    return "; ".join(phrases)


def baseline_fact(
    study: StudyRecord, outcomes: Sequence[Outcome], recommended: RecommendedConfiguration
) -> list[tuple[str, str]]:
    """Return how the recommended configuration compares with the baseline; nothing without a baseline."""
    baseline = baseline_trial(study, outcomes)
    if baseline is None or len(outcomes) < 2:
        return []
    name = f"{configuration_label(baseline, study)} at {load_at(verified_or_offered_qps(baseline), baseline)}"
    if baseline.trial_id == recommended.trial.trial_id:
        return [("Baseline", f"{name} is the recommended configuration: no other trial was better.")]
    if baseline.output_tps_per_gpu is None:
        return [("Baseline", f"{name} was not measured: {baseline.reason or baseline.status}.")]
    figure = f"{formatting.format_figure(baseline.output_tps_per_gpu, 4)} tokens/s/GPU"
    change = simulated_change(baseline, recommended.trial) if baseline.feasible else None
    error = f" The change is {change_phrase(change)}." if change else ""
    return [("Baseline", f"{name} gives {figure} and {slo_clause(baseline)}.{error}")]


def certainty_fact(
    study: StudyRecord, recommended: RecommendedConfiguration, confirmation: Confirmation | None
) -> tuple[str, str]:
    """Return how sure the answer is, in one or two sentences."""
    if recommended.confirmed and confirmation:
        repeats = formatting.plural(len(recommended.confirmed.repeats), "new deployment")
        share, error = format_confidence(confirmation.confidence_frac), ""
        if recommended.confirmed.model_error_frac is not None:
            error = (
                f" The simulator's own error of {format_share(recommended.confirmed.model_error_frac)} (90 % "
                "interval) comes on top: a real rack decides."
            )
        return "How sure", f"One further full run holds with {share} confidence, by {repeats}.{error}"
    trial, error = recommended.trial, ""
    if trial.model_error:
        share = format_share(covered_frac(trial.model_error.sd_frac))
        error = f" A real rack may hold {share} more or less: the simulator's own error (90 % interval)."
    return "How sure", f"{_held(trial, study)}; not confirmed on new deployments.{error}"


def _held(trial: Outcome, study: StudyRecord) -> str:
    """Return in how many shuffles the SLO held, and how probably it holds in another one."""
    if trial.spread is None:
        return "Measured in one shuffle"
    uncertain = "Uncertain: the" if is_uncertain(trial, study.slo) else "The"
    probability = hold_probability(trial.spread)
    return (
        f"{uncertain} SLO holds in {trial.spread.slo_met} of {trial.spread.shuffles} shuffles, in another "
        f"one with probability {100 * probability.estimate:.0f} %"
    )


def answer_notes(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    recommended: RecommendedConfiguration,
    confirmation: Confirmation | None,
    ends: Sequence[RangeEnd],
) -> list[str]:
    """Return notes on the recommended configuration: how to be surer, what limits it, what to try.

    `ends` are those of ranges at which its values lie.
    """
    trial = recommended.trial
    notes = [
        *_confirmation_notes(study, outcomes, recommended, confirmation),
        *([] if recommended.confirmed else _notes_on_its_run(study, outcomes, trial)),
        *_check_notes(trial),
        *_bottleneck_notes(trial),
        *_latencies_note(study, outcomes),
        *_changed_notes(study, outcomes, trial),
        *_edge_notes(study, ends),
    ]
    if ended := describe_end(study):
        notes.append(f"Why the study ended: {ended}.")
    elif study.space and len(outcomes) < study.n_trials:
        notes.append(
            f"{len(outcomes):,} of {study.n_trials:,} planned trials are listed: the others repeat a listed "
            "configuration, have not run, or were left out because the search expected too little gain."
        )
    if study.name.endswith(SUFFIX):
        confirmed_study = study.name.removesuffix(SUFFIX)
        notes.append(f"These trials are repeats: the report of {confirmed_study} shows the confirmation.")
    return notes


def _notes_on_its_run(study: StudyRecord, outcomes: Sequence[Outcome], trial: Outcome) -> list[str]:
    """Return notes on the figures of the trial, which a confirmation replaces by its own."""
    return [
        *([model_error_sentence(trial.model_error)] if trial.model_error else []),
        *_capacity_note(trial),
        *verdict_notes(outcomes, trial, study.slo, study.space),
        _tightest_note(trial),
    ]


def closest_notes(study: StudyRecord, top: Outcome, *, is_missed: bool) -> list[str]:
    """Return notes on the trial that came closest; `is_missed` says that a limit was exceeded."""
    notes = [
        *_capacity_note(top),
        *verdict_notes([], top, study.slo, study.space),
        *_check_notes(top),
        *_bottleneck_notes(top),
    ]
    if not is_missed:
        notes.append(
            "Run it longer: a short run proves that a limit holds only if it stays well below the limit."
        )
    return notes


def _confirmation_notes(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    recommended: RecommendedConfiguration,
    confirmation: Confirmation | None,
) -> list[str]:
    """Return what a confirmation found if it guarantees no rate, or how to run one."""
    if recommended.confirmed:
        return []
    if confirmation:
        return [confirmation_sentence(study, outcomes, confirmation)]
    if study.name.endswith(SUFFIX) or study.search.traits.exhaustive or len(outcomes) < 2:
        return []
    return [
        "The best of many trials is partly the luckiest one, so its figures are probably too good. For a "
        "rate to rely on, measure the best configurations again on new deployments: "
        f"{confirm_command(study)}."
    ]


def _capacity_note(top: Outcome) -> list[str]:
    """Return the rates that a capacity search found and its cost; nothing if one rate was measured."""
    if not is_capacity_search(top):
        return []
    return [f"Capacity search on one deployment: {describe_capacity(top)}. Cost: {describe_cost(top)}."]


def _check_notes(top: Outcome) -> list[str]:
    """Return what the run of a trial did not measure as meant; nothing where no check is off."""
    return [f"Not measured as meant: {phrase}." for phrase in off_phrases(top)]


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
    notes = [f"To try: {recommendations}."] if recommendations else []
    _, *evidence = top.bottleneck.evidence.split("; ")  # the first part repeats the tightest limit
    if evidence:
        name = formatting.BOTTLENECK_NAMES[top.bottleneck.kind]
        notes.insert(0, f"Bottleneck: {name}; {'; '.join(evidence)}.")
    return notes


def _tightest_note(best: Outcome) -> str:
    """Return whether a limit is near."""
    tightest = tightest_limit(best)
    if tightest is None:
        return "No latency limit is set: the ranking is by output tokens/s/GPU only."
    name, share = tightest
    if share < 1 - NEAR_FRAC:
        return (
            f"No limit is near: {name}, the tightest, uses {share * 100:.0f} % of its limit. That does not "
            "say how much higher a rate holds: latency rises steeply at the edge of saturation."
        )
    return f"Tightest limit: {name} uses {share * 100:.0f} % of its limit."


def _latencies_note(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the latencies of a measured baseline."""
    baseline = baseline_trial(study, outcomes)
    if baseline is None or baseline.output_tps_per_gpu is None:
        return []
    return [f"Latencies of the baseline: {measured_latencies(study, baseline)}."]


def _changed_notes(study: StudyRecord, outcomes: Sequence[Outcome], best: Outcome) -> list[str]:
    """Return the settings in which the best trial differs from the baseline."""
    baseline = baseline_trial(study, outcomes)
    if baseline is None or baseline.trial_id == best.trial_id:
        return []
    before, after = formatting.params(baseline), formatting.params(best)
    changed = [
        f"{name} {formatting.setting(before[name])} → {formatting.setting(value)}"
        for name, value in after.items()
        if name in before and before[name] != value
    ]
    return [f"Changed from the baseline: {', '.join(changed)}."] if changed else []


def _edge_notes(study: StudyRecord, ends: Sequence[RangeEnd]) -> list[str]:
    """Return the settings of the best trial at an end of their range, and the command that widens it."""
    final = describe_final_ends(ends)
    return [
        *([f"{described}: {widening_command(study, ends)}."] if (described := describe_ends(ends)) else []),
        *([f"{final}."] if final else []),
    ]
