"""Test the candidates that are found near others, in a sweep that is too large to list."""

from __future__ import annotations

import numpy as np
import pytest
from support.composed import composed

from tune.spec.bind import bind_point
from tune.study.candidate_space import FEW_VALUES, STEPS, CandidateSpace
from tune.study.candidates import MAX_CANDIDATES, Candidates, can_run, candidates

SETTINGS = composed("+sweep=everything", "load.mode=capacity")
BASE, SWEEP = SETTINGS.trial_spec, SETTINGS.sweep
assert SWEEP


@pytest.fixture(scope="module")
def first() -> Candidates:
    assert SWEEP
    return candidates(BASE, SWEEP, 0)


def space_of(first: Candidates) -> CandidateSpace:
    assert SWEEP
    return CandidateSpace(BASE, SWEEP, first, 0)


@pytest.mark.slow
def test_neighbours_differ_in_one_or_two_dimensions_by_a_step_and_can_run(first: Candidates) -> None:
    """Where the size of workers moves, their number may move by more than a step."""
    assert SWEEP
    space = space_of(first)
    found, specs, features = space.neighbours([0, 1])
    assert len(found) > 20
    assert len(specs) == len(features) == len(space.points) - MAX_CANDIDATES
    positions = [
        np.array([axis.index(point[name]) for name, axis in first.axes.items()]) for point in space.points
    ]
    long = np.array([len(axis) > FEW_VALUES for axis in first.axes.values()])
    resized = {list(first.axes).index(f"prefill_{name}") for name in ("tensor_parallel_size", "workers")}
    for index in found:
        moves = [np.abs(positions[index] - positions[start]) for start in (0, 1)]
        assert any(
            set(np.flatnonzero(move).tolist()) == resized
            or (1 <= (move > 0).sum() <= 2 and set(move[long & (move > 0)].tolist()) <= set(STEPS))
            for move in moves
        )
    for spec, point in zip(specs, space.points[MAX_CANDIDATES:], strict=True):
        assert can_run(spec)
        assert bind_point(BASE, SWEEP, point) == spec


@pytest.mark.slow
def test_a_neighbour_with_other_tensor_parallelism_keeps_the_gpus_of_the_pool(first: Candidates) -> None:
    space = space_of(first)
    (here,), _, _ = space.find({**first.points[0], "prefill_tensor_parallel_size": 4, "prefill_workers": 13})
    near = [space.points[index] for index in space.neighbours([here])[0]]
    for tensor_parallel, workers in ((2, 26), (8, 6)):
        resized = {"prefill_tensor_parallel_size": tensor_parallel, "prefill_workers": workers}
        assert {**space.points[here], **resized} in near


@pytest.mark.slow
def test_a_candidate_has_one_index_and_features_on_the_scale_of_the_first(first: Candidates) -> None:
    space = space_of(first)
    again, specs, _ = space.find(first.points[7])
    assert (list(again), list(specs)) == ([7], [])
    assert space.index_of_trial(first.specs[7].trial_id) == 7
    best = {
        **first.points[0],
        "prefill_tensor_parallel_size": 2,
        "prefill_workers": 26,
        "prefill_max_num_tokens": 8192,
    }
    (index,), (spec,), (row,) = space.find(best)
    assert spec.split.label == "26P5D"
    assert space.index_of_trial(spec.trial_id) == index == MAX_CANDIDATES
    changed = np.flatnonzero(row != first.features[0]).tolist()
    names = [*first.axes, "decode workers"]
    assert {names[column] for column in changed} == {
        "prefill_tensor_parallel_size",
        "prefill_workers",
        "prefill_max_num_tokens",
        "decode workers",
    }
    assert space.find(best)[0] == [index]
    assert space.find({**best, "prefill_workers": 99})[0] == []
    assert space.find({})[0] == []


@pytest.mark.slow
def test_what_is_found_does_not_depend_on_what_was_found_before(first: Candidates) -> None:
    one, other = space_of(first), space_of(first)
    other.neighbours([5, 6])
    points = [[space.points[index] for index in space.neighbours([3])[0]] for space in (one, other)]
    assert points[0] == points[1]
