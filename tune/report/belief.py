"""What a search that learns the rack believes of it, as the page tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.report import expected, factors, words
from tune.report.canvas import Figure
from tune.report.parameters import gain, told_of
from tune.results.belief import Belief, HypothesisBelief, Interval, TrialBelief
from tune.results.outcome import Outcome
from tune.results.proposals import Proposal
from tune.results.record import StudyRecord

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
class Hypothesis:
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
class Learned:
    """The page's section. `untold`: the sentence in the place of an empty `unexplained`."""

    gain: str
    told: str
    expected: Figure
    parameters: Figure
    hypotheses: tuple[Hypothesis, ...]
    unexplained: tuple[Unexplained, ...]
    untold: str


def learned(
    study: StudyRecord, outcomes: Sequence[Outcome], belief: Belief, proposals: Sequence[Proposal]
) -> Learned:
    """`outcomes` holds each trial once."""
    return Learned(
        gain=gain(belief),
        told=told_of(belief),
        expected=expected.drawing(expected.pairs(outcomes, proposals)),
        parameters=factors.drawing(belief.parameters),
        hypotheses=tuple(map(_hypothesis, belief.hypotheses)),
        unexplained=_unexplained(study, outcomes, belief),
        untold=_untold(belief),
    )


def _hypothesis(of: HypothesisBelief) -> Hypothesis:
    said = "open"
    if of.now_frac >= LIKELY_FRAC:
        said = "likely"
    elif of.now_frac <= UNLIKELY_FRAC:
        said = "unlikely"
    name, _, value = of.name.partition("=")
    text = HYPOTHESES[name].format(value)
    return Hypothesis(text, f"{of.before_frac * 100:.0f} %", f"{of.now_frac * 100:.0f} %", said)


def _unexplained(study: StudyRecord, outcomes: Sequence[Outcome], belief: Belief) -> tuple[Unexplained, ...]:
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    return tuple(
        Unexplained(
            number=trial.number,
            configuration=_configuration(by_id.get(trial.trial_id), trial, study),
            measured=f"{trial.measured_qps:.4g}",
            simulated=_interval(trial.simulated_qps),
            off=_off(trial),
        )
        for trial in sorted(belief.trials, key=lambda t: (-abs(t.off_sd), t.number))
        if abs(trial.off_sd) >= UNEXPLAINED_SD
    )


def _configuration(outcome: Outcome | None, trial: TrialBelief, study: StudyRecord) -> str:
    return f"trial {trial.trial_id}" if outcome is None else words.describe(outcome, study.space)


def _interval(of: Interval) -> str:
    return f"{of.median:.4g} ({of.low:.4g} to {of.high:.4g})"


def _off(trial: TrialBelief) -> str:
    """-2.6 sd, 6.1 % below what is simulated."""
    side = "above" if trial.off_sd > 0 else "below"
    share = ""
    if trial.simulated_qps.median > 0:
        by = trial.measured_qps / trial.simulated_qps.median - 1
        share = f", {words.signed_percent(by)}"
    return f"{words.figure(abs(trial.off_sd), 2)} sd {side}{share}"


def _untold(belief: Belief) -> str:
    if not belief.trials:
        return "Of no trial on record the boundary was searched for and found."
    farthest = max(belief.trials, key=lambda t: (abs(t.off_sd), -t.number))
    return (
        f"None: of {words.plural(len(belief.trials), 'measured trial')} none lies {UNEXPLAINED_SD:g} "
        f"standard deviations or more from what is simulated. The farthest, trial {farthest.number}, was "
        f"measured at {words.rate(farthest.measured_qps)} and simulated at "
        f"{_interval(farthest.simulated_qps)}: {_off(farthest)}."
    )
