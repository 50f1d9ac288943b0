"""Pair the capacity that a search predicted for each trial with the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval
from tune.records.proposals import Proposal
from tune.report.formatting import plural
from tune.report.trial_status import UNMEASURED, TrialStatus, trial_status


@dataclass(frozen=True)
class PredictionPair:
    """Hold a trial with its predicted and its measured capacity; None stands for a missing one."""

    outcome: Outcome
    status: TrialStatus
    predicted_qps: Interval | None
    measured_qps: float | None

    @property
    def error_frac(self) -> float | None:
        """Return measured over predicted median capacity, minus 1; None if either is missing."""
        if self.measured_qps is None or self.predicted_qps is None or self.predicted_qps.median <= 0:
            return None
        return self.measured_qps / self.predicted_qps.median - 1

    @property
    def level_qps(self) -> float | None:
        """Return the height of the mark: the measured capacity, else the offered rate.

        None if nothing was measured.
        """
        if self.status in UNMEASURED:
            return None
        return self.outcome.target_qps if self.measured_qps is None else self.measured_qps

    @property
    def inside(self) -> bool:
        """Return True if the measured capacity lies inside the predicted 90 % interval."""
        if self.predicted_qps is None or self.measured_qps is None:
            return False
        return self.predicted_qps.low <= self.measured_qps <= self.predicted_qps.high


def prediction_pairs(outcomes: Sequence[Outcome], proposals: Sequence[Proposal]) -> list[PredictionPair]:
    """Return a pair per trial, in order of number.

    `outcomes` holds each trial once; of several proposals of a trial the first counts.
    """
    predictions: dict[str, Interval | None] = {}
    for proposal in proposals:
        predictions.setdefault(proposal.trial_id, proposal.expected_capacity_qps)
    return [
        PredictionPair(
            outcome,
            trial_status(outcome),
            predictions.get(outcome.trial_id),
            outcome.capacity_qps.estimate if outcome.status == "measured" else None,
        )
        for outcome in sorted(outcomes, key=lambda o: o.number)
    ]


def describe_accuracy(pairs: Sequence[PredictionPair]) -> str:
    """Return how wide predictions were and how far off, for the first and the last third of the trials.

    Trials that were stopped early do not count, because their capacity is only a forecast.
    """
    known = [pair for pair in pairs if pair.error_frac is not None and pair.status != "stopped_early"]
    if not known:
        return "No trial has both a prediction and a measured capacity."
    inside = sum(pair.inside for pair in known)
    text = (
        f"{inside:,} of {len(known):,} measured capacities lie inside the predicted 90 % interval (trials "
        "stopped early not counted)."
    )
    third = len(known) // 3
    if third < 2:
        return text
    parts = [
        f"for the {name} {third} trials the interval was {_half_width(group)} and the measurement "
        f"{median(abs(pair.error_frac or 0.0) for pair in group) * 100:.1f} % off"
        for name, group in (("first", known[:third]), ("last", known[-third:]))
    ]
    return f"{text} Medians: {parts[0]}; {parts[1]}."


def errors_so_far(outcomes: Sequence[Outcome], proposals: Sequence[Proposal]) -> str | None:
    """Return how far off predictions were so far, as a sentence; None where nothing predicted was measured.

    Trials that were stopped early do not count, because their capacity is only a forecast.
    """
    pairs = prediction_pairs(outcomes, proposals)
    errors = [pair.error_frac for pair in pairs if pair.status != "stopped_early"]
    known = [error for error in errors if error is not None]
    if not known:
        return None
    return (
        f"So far predictions were {median(map(abs, known)) * 100:.1f} % off in the median of "
        f"{plural(len(known), 'trial')}, too high in {sum(error < 0 for error in known)}."
    )


def _half_width(pairs: Sequence[PredictionPair]) -> str:
    """Return half the interval's width over its median, as a median over trials, such as ±12 %."""
    halves = [(qps.high - qps.low) / 2 / qps.median for pair in pairs if (qps := pair.predicted_qps)]
    return f"±{median(halves) * 100:.0f} %"
