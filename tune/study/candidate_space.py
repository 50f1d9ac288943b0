"""Find candidates near promising ones, in a sweep that is too large to list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tune.core.arrays import FloatArray
from tune.spec.bind import Point, bind_point
from tune.spec.space import Sweep
from tune.spec.split import ROLES
from tune.spec.trial import TrialSpec
from tune.study.candidates import Candidates, can_run, feature_table

FEW_VALUES, STEPS = 6, (1, 2, 4)
"""A dimension of at most FEW_VALUES is varied over all of them, a longer one by these steps. Chosen here."""

DOUBLE_MOVES = 8
"""Number of further neighbours, of which two dimensions differ, drawn at random. Chosen here."""

Resizing = tuple[int, int, Sequence[int]]
"""A dimension that changes the GPUs of a pool's workers, that of their number, and the GPUs by position."""

Found = tuple[Sequence[int], Sequence[TrialSpec], FloatArray]
"""Indices of candidates, and the specs and features of those among them that are new."""


class CandidateSpace:
    """Hold the candidates so far; an index stands for one for good."""

    def __init__(self, base: TrialSpec, sweep: Sweep, candidates: Candidates, seed: int) -> None:
        """Begin with `candidates` of `sweep`, as `candidates(base, sweep, seed)` returned them."""
        self._base, self._seed, self._candidates, self._axes = base, seed, candidates, candidates.axes
        self._sweep = sweep.model_copy(update={"space": {name: sweep.space[name] for name in self._axes}})
        self.points: list[Point] = list(candidates.points)
        self._resizing = list(_resizing_dimensions(base, self._sweep, self._axes))
        self._index: dict[tuple[int, ...], int | None] = {}
        self._index_by_trial_id = {spec.trial_id: index for index, spec in enumerate(candidates.specs)}
        for index, point in enumerate(candidates.points):
            self._index[self._positions(point)] = index

    def index_of_trial(self, trial_id: str) -> int | None:
        """Return the index of the candidate that is deployed as `trial_id`; None for no candidate so far."""
        return self._index_by_trial_id.get(trial_id)

    def find(self, point: Mapping[str, Any]) -> Found:
        """Return the candidate that `point` is, rate aside; none where it is no point or cannot run."""
        try:
            return self._find([self._positions(point)])
        except (KeyError, ValueError):
            return self._find([])

    def neighbours(self, indices: Sequence[int]) -> Found:
        """Return the candidates next to `indices`, themselves excepted; none where all points are listed."""
        if self._candidates.is_complete:
            return self._find([])
        near = (move for index in indices for move in self._moves(self._positions(self.points[index])))
        return self._find(list(dict.fromkeys(near)))

    def _find(self, positions: Sequence[tuple[int, ...]]) -> Found:
        """Return the candidates at `positions`."""
        points: list[Point] = []
        specs: list[TrialSpec] = []
        for place in positions:
            if place in self._index:
                continue
            point = {name: axis[k] for (name, axis), k in zip(self._axes.items(), place, strict=True)}
            spec = bind_point(self._base, self._sweep, point)
            self._index[place] = self._index_by_trial_id.get(spec.trial_id)
            if self._index[place] is None and can_run(spec):
                self._index[place] = self._index_by_trial_id[spec.trial_id] = len(self.points) + len(points)
                points.append(point)
                specs.append(spec)
        self.points += points
        found = (self._index[place] for place in positions)
        features = self._candidates.scaled(feature_table(self._axes, points, specs))
        return [index for index in found if index is not None], specs, features

    def _moves(self, positions: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the neighbours of a point, given as the position of each value in its dimension."""
        single = list(self._single_moves(positions))
        yield from (self._moved(positions, [move]) for move in single)
        draws = np.random.default_rng([self._seed, 4, *positions])
        for _ in range(DOUBLE_MOVES if len(single) > 1 else 0):
            first, second = draws.choice(len(single), 2, replace=False).tolist()
            yield self._moved(positions, [single[first], single[second]])
        yield from (self._moved(positions, moves) for moves in self._equal_gpu_moves(positions))

    def _single_moves(self, positions: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """Yield the dimension and the new position of every move along one dimension."""
        for dimension, (axis, here) in enumerate(zip(self._axes.values(), positions, strict=True)):
            places = range(len(axis))
            if len(axis) > FEW_VALUES:
                places = [here + sign * step for step in STEPS for sign in (-1, 1)]  # type: ignore[assignment]
            yield from ((dimension, place) for place in places if 0 <= place < len(axis) and place != here)

    def _equal_gpu_moves(self, positions: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
        """Yield moves to larger or smaller workers, so many that the pool has about as many GPUs."""
        axes = list(self._axes.values())
        for dimension, count, gpus in self._resizing:
            pool_gpus = axes[count][positions[count]] * gpus[positions[dimension]]
            for place, worker_gpus in enumerate(gpus):
                if worker_gpus == gpus[positions[dimension]]:
                    continue
                distance = [abs(workers * worker_gpus - pool_gpus) for workers in axes[count]]
                yield [(dimension, place), (count, distance.index(min(distance)))]

    @staticmethod
    def _moved(positions: tuple[int, ...], moves: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Return `positions` after `moves`, each a dimension and its new position."""
        moved = list(positions)
        for dimension, place in moves:
            moved[dimension] = place
        return tuple(moved)

    def _positions(self, point: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the position of each value in its dimension. Raises ValueError where it is none."""
        return tuple(axis.index(point[name]) for name, axis in self._axes.items())


def _resizing_dimensions(base: TrialSpec, sweep: Sweep, axes: Mapping[str, list[Any]]) -> Iterator[Resizing]:
    """Yield the dimensions of few values that change the GPUs of a worker, where their number is one too."""
    names, first = list(axes), {name: axis[0] for name, axis in axes.items()}
    paths = [sweep.space[name].path for name in names]
    for role in ROLES:
        if f"split.{role}_workers" not in paths:
            continue
        for place, (name, path) in enumerate(zip(names, paths, strict=True)):
            if path.startswith(f"{role}.") and len(axes[name]) <= FEW_VALUES:
                specs = [bind_point(base, sweep, {**first, name: value}) for value in axes[name]]
                gpus = [getattr(spec, role).gpus for spec in specs]
                if len(set(gpus)) > 1:
                    yield place, paths.index(f"split.{role}_workers"), gpus
