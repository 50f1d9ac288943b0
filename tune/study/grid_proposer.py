"""Suggest the points of a sweep's full grid, one after the other (`search=grid`)."""

from __future__ import annotations

from collections.abc import Mapping

from tune.records.outcome import Outcome
from tune.spec.bind import Point
from tune.spec.space import Dimension, Value
from tune.study.proposer import SearchEnd, TrialSuggestion
from tune.study.search_space import grid_point


class GridProposer:
    """Walk the grid once, last dimension fastest; outcomes do not change the order."""

    def __init__(self, space: Mapping[str, Dimension]) -> None:
        self._space = space
        self._position = 0
        self._known: set[tuple[Value, ...]] = set()

    def suggest(self, number: int) -> TrialSuggestion | SearchEnd:
        """Return the next point of the grid, or that there is none.

        Raises ConfigurationError for a dimension with a continuous range.
        """
        while (point := grid_point(self._space, self._position)) is not None:
            self._position += 1
            if tuple(point.values()) not in self._known:
                return TrialSuggestion(point)
        return SearchEnd("points")

    def add_trial(self, number: int, point: Point, source: str) -> None:
        """Pass over the point from now on, where the grid suggested it; the baseline takes no position."""
        if source == "grid":
            self._known.add(tuple(point[name] for name in self._space))

    def observe(self, number: int, outcome: Outcome) -> None:
        """Ignore the outcome: the order of the grid is fixed."""

    def baseline_capacity_qps(self, trial_id: str) -> None:
        """Return None: the grid predicts nothing."""

    def summarise(self, trial_ids: Mapping[int, str]) -> None:
        """Return None: the grid has no posterior."""
