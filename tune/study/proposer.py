"""Define the interface of search methods: suggest points, observe outcomes, summarise the posterior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, PosteriorSummary
from tune.spec.bind import Point


@dataclass(frozen=True)
class TrialSuggestion:
    """Hold a point of the sweep that is worth a trial, and what its proposer predicts for it.

    Attributes
    ----------
    point
        A value for each dimension of the sweep.
    expected_capacity_qps
        Predicted capacity, queries/s; None where the search method predicts none.
    early_stop_below_qps
        Below this capacity another configuration is predicted to do better, so that no exact measurement is
        needed; 0 if there is no such rate.
    expected_improvement_frac
        Share by which the trial is predicted to raise the best rate; None where nothing is predicted.
    """

    point: Point
    expected_capacity_qps: Interval | None = None
    early_stop_below_qps: float = 0.0
    expected_improvement_frac: float | None = None


@dataclass(frozen=True)
class SearchEnd:
    """Hold why a search suggests no further trial.

    `points`: every point is known or runs. `gain`: the best next trial is expected to raise the best rate by
    `expected_gain_frac` only.
    """

    kind: Literal["points", "gain"]
    expected_gain_frac: float | None = None


class Proposer(Protocol):
    """Suggest the points of one study and learn from the outcomes.

    A proposer lives in memory. A study rebuilds it at every start: it calls `add_trial` and `observe` with
    the recorded trials, in the order of their numbers. The rebuilt proposer then suggests the points that
    the first one would have suggested.
    """

    def suggest(self, number: int) -> TrialSuggestion | SearchEnd:
        """Return the point for trial `number`, given all outcomes observed so far.

        The trial counts as running until `observe` receives its outcome. Returns why the search ends when the
        space is exhausted, or when no further trial is predicted to be worth its cost.
        """

    def add_trial(self, number: int, point: Point, source: str) -> None:
        """Enter a point from the record, or from outside the search, as the running trial `number`.

        `source` is "baseline" or the name of the search method that suggested it.
        """

    def observe(self, number: int, outcome: Outcome) -> None:
        """Learn from the outcome of trial `number`, which need not be a point of the sweep.

        A failed outcome shows nothing about the configuration and is not learned from.
        """

    def baseline_capacity_qps(self, trial_id: str) -> Interval | None:
        """Return the capacity predicted for the configuration `trial_id` before any outcome is observed.

        Returns None where the search method predicts none, or the configuration is none of its candidates.
        """

    def summarise(self, trial_ids: Mapping[int, str]) -> PosteriorSummary | None:
        """Return the posterior after all outcomes; `trial_ids` by trial number. None where there is none."""
