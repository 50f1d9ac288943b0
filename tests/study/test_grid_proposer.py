"""Test that the grid proposer suggests every point once, in a fixed order."""

from __future__ import annotations

import pytest
from support.suggestions import suggested

from tune.errors import ConfigurationError
from tune.spec.space import Dimension, FloatDimension, IntDimension, OrderedDimension
from tune.study.grid_proposer import GridProposer
from tune.study.proposer import SearchEnd
from tune.study.search_space import grid_point

GRID: dict[str, Dimension] = {
    "a": IntDimension(kind="int", path="x.a", low=1, high=3, step=2),
    "b": OrderedDimension(kind="ordered", path="x.b", values=(64, 128)),
    "q": FloatDimension(kind="float", path="x.q", low=0.5, high=1.1, step=0.3),
}


def test_grid_is_walked_once_to_its_end() -> None:
    proposer = GridProposer(GRID)
    points = [suggested(proposer, number) for number in range(13)]
    assert points[12] is None
    assert proposer.suggest(13) == SearchEnd("points")
    assert len({tuple(point.values()) for point in points[:12] if point}) == 12
    assert points[0] == {"a": 1, "b": 64, "q": 0.5}
    assert points[11] == {"a": 3, "b": 128, "q": 1.1}
    assert points[11] == grid_point(GRID, 11)


def test_baseline_takes_no_position_of_the_grid() -> None:
    proposer = GridProposer(GRID)
    proposer.add_trial(0, {"a": 3, "b": 128, "q": 0.8}, "baseline")
    assert suggested(proposer, 1) == grid_point(GRID, 0)
    resumed = GridProposer(GRID)
    resumed.add_trial(0, {"a": 3, "b": 128, "q": 0.8}, "baseline")
    first = grid_point(GRID, 0)
    assert first is not None
    resumed.add_trial(1, first, "grid")
    assert suggested(resumed, 2) == grid_point(GRID, 1)


def test_continuous_range_is_one_clear_error() -> None:
    space: dict[str, Dimension] = {
        "target_qps": FloatDimension(kind="float", path="load.target_qps", low=6.0, high=26.0)
    }
    with pytest.raises(ConfigurationError, match=r"sweep.space.target_qps: found a continuous range"):
        GridProposer(space).suggest(0)
