"""Compute the section of the page about what a surrogate search learned from the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import HypothesisPosterior, Interval, PosteriorSummary, TrialPosterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures.posterior_parameters import posterior_figure
from tune.report.figures.prediction_error import prediction_figure
from tune.report.figures.style import Figure
from tune.report.posterior_text import gain_sentence, learned_sentences
from tune.report.prediction_pairs import prediction_pairs
from tune.report.rival_text import rival_sentence

UNEXPLAINED_SDS = 2.0
"""Distance from the simulated capacity, in standard deviations, from which a trial counts as unexplained."""

LIKELY_FRAC, UNLIKELY_FRAC = 0.9, 0.1
"""Posterior probability from which a hypothesis is called likely, and up to which it is called unlikely."""

HYPOTHESES = {
    "router": "the router is {}",
    "calibration_error": "distance of the rack from its calibration: ×{} of an unknown rack's",
    "emulator_sd": "error of the emulator, as a share of the capacity: {} (standard deviation)",
    "noise_sd": "noise of a measured capacity, as a share of it: {} (standard deviation)",
    "large_batch_weight_reads": "extra weight reads per decode step above 128 sequences: {}",
    "last_decode_worker_scale": "step time of the last decode worker, relative to the others: ×{}",
    "head_node_scale": "step time of workers on the frontend's node, relative to the others: ×{}",
}
"""Sentence for each hypothesis by the part of its name before "="; the part after it fills the braces."""


@dataclass(frozen=True)
class HypothesisRow:
    """Hold a hypothesis as it is shown: `prior` and `posterior` are its probabilities in percent, as text."""

    statement: str
    prior: str
    posterior: str
    assessment: str


@dataclass(frozen=True)
class UnexplainedTrial:
    """Hold a trial whose measured capacity lies far from the simulated one; rates in queries/s, as text."""

    number: int
    configuration: str
    measured: str
    simulated: str
    difference: str


@dataclass(frozen=True)
class LearnedSection:
    """Hold what the page shows of the posterior. `all_explained` is shown if `unexplained` is empty."""

    gain: str
    summary: str
    predictions: Figure
    parameters: Figure
    hypotheses: tuple[HypothesisRow, ...]
    unexplained: tuple[UnexplainedTrial, ...]
    all_explained: str


def learned_section(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    posterior: PosteriorSummary,
    proposals: Sequence[Proposal],
    confirmation: Confirmation | None = None,
) -> LearnedSection:
    """Return the section for a posterior.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    posterior
        What the search learned.
    proposals
        What the search expected of each trial.
    confirmation
        What decided between the trials, None before.

    Returns
    -------
    LearnedSection
        Sentences, pictures and tables.
    """
    pairs = prediction_pairs(outcomes, proposals)
    rival = None if confirmation else rival_sentence(study, outcomes, posterior)
    return LearnedSection(
        gain=" ".join(filter(None, [gain_sentence(posterior), rival])),
        summary=learned_sentences(posterior),
        predictions=prediction_figure(pairs),
        parameters=posterior_figure(posterior.parameters),
        hypotheses=tuple(map(_hypothesis_row, posterior.hypotheses)),
        unexplained=_unexplained_trials(study, outcomes, posterior),
        all_explained=_describe_farthest(posterior),
    )


def _hypothesis_row(hypothesis: HypothesisPosterior) -> HypothesisRow:
    """Return a hypothesis in words; one that has no sentence here is shown by its name."""
    assessment = "open"
    if hypothesis.posterior_frac >= LIKELY_FRAC:
        assessment = "likely"
    elif hypothesis.posterior_frac <= UNLIKELY_FRAC:
        assessment = "unlikely"
    name, _, value = hypothesis.name.partition("=")
    sentence = HYPOTHESES.get(name)
    return HypothesisRow(
        statement=hypothesis.name if sentence is None else sentence.format(value),
        prior=f"{hypothesis.prior_frac * 100:.0f} %",
        posterior=f"{hypothesis.posterior_frac * 100:.0f} %",
        assessment=assessment,
    )


def _unexplained_trials(
    study: StudyRecord, outcomes: Sequence[Outcome], posterior: PosteriorSummary
) -> tuple[UnexplainedTrial, ...]:
    """Return the trials that the simulator cannot explain, the farthest first."""
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    return tuple(
        UnexplainedTrial(
            number=trial.number,
            configuration=_describe_trial(by_id.get(trial.trial_id), trial, study),
            measured=f"{trial.measured_qps:.4g}",
            simulated=_format_interval(trial.simulated_qps),
            difference=_describe_difference(trial),
        )
        for trial in sorted(posterior.trials, key=lambda t: (-abs(t.standardised_residual), t.number))
        if abs(trial.standardised_residual) >= UNEXPLAINED_SDS
    )


def _describe_trial(outcome: Outcome | None, trial: TrialPosterior, study: StudyRecord) -> str:
    """Return the configuration of a trial, or its id if the study has no longer a record of it."""
    if outcome is None:
        return f"trial {trial.trial_id}"
    return formatting.describe_configuration(outcome, study.space)


def _format_interval(interval: Interval) -> str:
    """Return the median and the 90 % interval: 16.1 (15.5 to 16.6)."""
    return f"{interval.median:.4g} ({interval.low:.4g} to {interval.high:.4g})"


def _describe_difference(trial: TrialPosterior) -> str:
    """Return how far the measurement lies from the simulated median: 2.6 sd below, -6.1 %."""
    side = "above" if trial.standardised_residual > 0 else "below"
    share = ""
    if trial.simulated_qps.median > 0:
        excess = trial.measured_qps / trial.simulated_qps.median - 1
        share = f", {formatting.signed_percent(excess)}"
    return f"{formatting.format_figure(abs(trial.standardised_residual), 2)} sd {side}{share}"


def _describe_farthest(posterior: PosteriorSummary) -> str:
    """Return the sentence for a posterior without unexplained trials; it names the farthest trial."""
    if not posterior.trials:
        return "No trial has a measured capacity yet."
    farthest = max(posterior.trials, key=lambda t: (abs(t.standardised_residual), -t.number))
    return (
        f"The simulator explains every measured capacity: none of {len(posterior.trials):,} lies "
        f"{UNEXPLAINED_SDS:g} standard deviations or more from the simulated one. The farthest, trial "
        f"{farthest.number}, was measured at {formatting.rate(farthest.measured_qps)} and simulated at "
        f"{_format_interval(farthest.simulated_qps)}: {_describe_difference(farthest)}."
    )
