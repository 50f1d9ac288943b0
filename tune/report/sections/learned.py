"""What a search that learns the rack believes of it, as the page tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.outcome import Outcome
from tune.records.posterior_summary import HypothesisPosterior, Interval, PosteriorSummary, TrialPosterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures import posterior_parameters, prediction_error
from tune.report.figures.style import Figure
from tune.report.posterior_text import gain_sentence, learned_sentence

UNEXPLAINED_SD = 2.0
"""From so many standard deviations on, a measurement is one that the simulator cannot explain."""

LIKELY_FRAC, UNLIKELY_FRAC = 0.9, 0.1

HYPOTHESES = {
    "router": "the router is {}",
    "large_batch_weight_reads": "above 128 sequences decode reads the weights {} times more",
    "last_decode_worker_scale": "the last decode worker takes {} times as long as others",
    "head_node_scale": "workers beside the front end take {} times as long as others",
}
"""What a hypothesis says of its value."""


@dataclass(frozen=True)
class HypothesisRow:
    """`before` and `now` are probabilities in percent, as text."""

    name: str
    before: str
    now: str
    said: str


@dataclass(frozen=True)
class Unexplained:
    """A trial that lies far from what the simulator, as it is believed now, says of it."""

    number: int
    configuration: str
    measured: str
    simulated: str
    off: str


@dataclass(frozen=True)
class LearnedSection:
    """The page's section. `untold`: the sentence in the place of an empty `unexplained`."""

    gain: str
    told: str
    expected: Figure
    parameters: Figure
    hypotheses: tuple[HypothesisRow, ...]
    unexplained: tuple[Unexplained, ...]
    untold: str


def learned_section(
    study: StudyRecord, outcomes: Sequence[Outcome], belief: PosteriorSummary, proposals: Sequence[Proposal]
) -> LearnedSection:
    """`outcomes` holds each trial once."""
    return LearnedSection(
        gain=gain_sentence(belief),
        told=learned_sentence(belief),
        expected=prediction_error.prediction_figure(prediction_error.prediction_pairs(outcomes, proposals)),
        parameters=posterior_parameters.posterior_figure(belief.parameters),
        hypotheses=tuple(map(_hypothesis, belief.hypotheses)),
        unexplained=_unexplained(study, outcomes, belief),
        untold=_untold(belief),
    )


def _hypothesis(of: HypothesisPosterior) -> HypothesisRow:
    said = "open"
    if of.posterior_frac >= LIKELY_FRAC:
        said = "likely"
    elif of.posterior_frac <= UNLIKELY_FRAC:
        said = "unlikely"
    name, _, value = of.name.partition("=")
    text = HYPOTHESES[name].format(value)
    return HypothesisRow(text, f"{of.prior_frac * 100:.0f} %", f"{of.posterior_frac * 100:.0f} %", said)


def _unexplained(
    study: StudyRecord, outcomes: Sequence[Outcome], belief: PosteriorSummary
) -> tuple[Unexplained, ...]:
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    return tuple(
        Unexplained(
            number=trial.number,
            configuration=_configuration(by_id.get(trial.trial_id), trial, study),
            measured=f"{trial.measured_qps:.4g}",
            simulated=_interval(trial.simulated_qps),
            off=_off(trial),
        )
        for trial in sorted(belief.trials, key=lambda t: (-abs(t.standardised_residual), t.number))
        if abs(trial.standardised_residual) >= UNEXPLAINED_SD
    )


def _configuration(outcome: Outcome | None, trial: TrialPosterior, study: StudyRecord) -> str:
    return (
        f"trial {trial.trial_id}"
        if outcome is None
        else formatting.describe_configuration(outcome, study.space)
    )


def _interval(of: Interval) -> str:
    return f"{of.median:.4g} ({of.low:.4g} to {of.high:.4g})"


def _off(trial: TrialPosterior) -> str:
    """-2.6 sd, 6.1 % below what is simulated."""
    side = "above" if trial.standardised_residual > 0 else "below"
    share = ""
    if trial.simulated_qps.median > 0:
        by = trial.measured_qps / trial.simulated_qps.median - 1
        share = f", {formatting.signed_percent(by)}"
    return f"{formatting.format_figure(abs(trial.standardised_residual), 2)} sd {side}{share}"


def _untold(belief: PosteriorSummary) -> str:
    if not belief.trials:
        return "Of no trial on record the boundary was searched for and found."
    farthest = max(belief.trials, key=lambda t: (abs(t.standardised_residual), -t.number))
    return (
        f"None: of {formatting.plural(len(belief.trials), 'measured trial')} none lies {UNEXPLAINED_SD:g} "
        f"standard deviations or more from what is simulated. The farthest, trial {farthest.number}, was "
        f"measured at {formatting.rate(farthest.measured_qps)} and simulated at "
        f"{_interval(farthest.simulated_qps)}: {_off(farthest)}."
    )
