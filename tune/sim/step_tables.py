"""Interpolate tables of measured step times for the serving loops.

A prefill step is found by its new tokens and by the tokens that each of them attends to, which are
(context + new / 2) / prompts. A decode step is found by its batch and the mean context of its sequences. The
rows of one size (new tokens, or batch) form a curve over the second quantity. Measured times scatter, so
curves are made monotone by isotonic regression, weighted by the steps of each row: first each curve, then all
curves from size to size. Between points times are linear; beyond the smallest and the largest size they
follow the trend of the sizes nearby, as one point alone scatters. No step takes less than SHORTEST_STEP_S.

Source: isotonic regression by pooling adjacent violators, Barlow et al. 1972.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.sim.decode_pool import DecodeSteps
from tune.sim.prefill_pool import PrefillTable
from tune.spec.cluster import Calibration
from tune.spec.step_table import Phase, StepRow

SHORTEST_STEP_S = 1e-6
"""Shortest step, seconds: lines towards small steps may end below 0. Chosen here: far below real ones."""

_LEAST_SHARE = 0.0005
"""Share of extrapolated steps that is worth a warning. Chosen here: less is shown as 0.0 %."""

_MAX_KNOTS = 64
"""Points at which curves are held. Chosen here: decode steps are summed in closed form between two."""


class _Grid(NamedTuple):
    """Hold a table as a grid: seconds (n, k) at `sizes` (n,) and `knots` (k,) of the second quantity.

    The first and the last size were not measured: they hold the trends beyond those that were.
    """

    sizes: FloatArray
    knots: FloatArray
    step_s: FloatArray


@lru_cache(maxsize=8)
def prefill_table(rows: tuple[StepRow, ...]) -> PrefillTable:
    """Return the table of a prefill worker's rows."""
    points = [
        (row.new_tokens, ((row.context_tokens or 0) + row.new_tokens / 2) / row.batch, row) for row in rows
    ]
    if rows[0].context_tokens is None:
        points = [(tokens, 0.0, row) for tokens, _, row in points]
    return PrefillTable(*_grid(points))


def prefill_line(rows: tuple[StepRow, ...]) -> tuple[float, float]:
    """Return the seconds of a step and of each new token, by the line through the ends of a prefill table."""
    tokens, _, step_s = prefill_table(rows)
    token_s = float((step_s[-2, -1] - step_s[1, -1]) / (tokens[-2] - tokens[1]))
    return max(0.0, float(step_s[1, -1]) - token_s * float(tokens[1])), token_s


@lru_cache(maxsize=8)
def decode_steps(rows: tuple[StepRow, ...], slots: int, scale: float, gap_s: float = 0.0) -> DecodeSteps:
    """Return the steps of a decode worker for batches of 0 to `slots`.

    Parameters
    ----------
    rows
        Rows of decode; without context tokens, a step takes as long with any context.
    slots
        Largest batch.
    scale
        Factor on every step.
    gap_s
        Seconds between two steps, added to each.

    Returns
    -------
    DecodeSteps
        Linear in the context between two knots of the table.
    """
    grid = _grid([(row.batch, (row.context_tokens or 0) / row.batch, row) for row in rows])
    batch = np.arange(slots + 1.0)
    columns = [_extended(grid.sizes, column, batch) for column in grid.step_s.T]
    step_s = scale * np.maximum(np.maximum.accumulate(columns).T, SHORTEST_STEP_S)
    known = (batch >= grid.sizes[1]) & (batch <= grid.sizes[-2])
    if len(grid.knots) == 1:
        ones = np.ones((slots + 1, 1))
        return DecodeSteps(step_s + gap_s, 0.0 * ones, np.array([np.inf]), known[:, None])
    slope = np.diff(step_s) / np.diff(grid.knots)
    # segments: below the first knot, between knots, above the last; the outer ones go on as their neighbours
    slope = np.column_stack([slope[:, 0], slope, slope[:, -1]])
    start = np.concatenate([grid.knots[:1], grid.knots])
    base = np.column_stack([step_s[:, 0], step_s]) - slope * start
    low = base[:, 0] < SHORTEST_STEP_S  # below the first knot the line may not reach 0
    slope[low, 0] = (step_s[low, 0] - SHORTEST_STEP_S) / grid.knots[0] if grid.knots[0] else 0.0
    base[low, 0] = SHORTEST_STEP_S
    inside = np.zeros((slots + 1, len(start)), bool)
    inside[:, 1:-1] = known[:, None]
    return DecodeSteps(
        base + gap_s, slope / np.maximum(batch, 1)[:, None], np.append(grid.knots, np.inf), inside
    )


def _grid(points: Sequence[tuple[float, float, StepRow]]) -> _Grid:
    """Return the grid of points (size, second quantity, row)."""
    sizes = np.unique([size for size, _, _ in points])
    knots = np.unique([second for _, second, _ in points])
    if len(knots) > _MAX_KNOTS:
        knots = np.unique(np.quantile(knots, np.linspace(0, 1, _MAX_KNOTS)))
    curves, weights = [], []
    for size in sizes:
        own = sorted(
            (second, row.milliseconds * 1e-3, row.steps) for point, second, row in points if point == size
        )
        second, step_s, steps = (np.array(column, float) for column in zip(*own, strict=True))
        curves.append(_extended(*_monotone(second, step_s, steps), knots))
        weights.append(steps.sum())
    measured = [_monotone(sizes, column, np.array(weights))[1] for column in np.array(curves).T]
    columns = [_with_trends(sizes, column, np.array(weights)) for column in measured]
    return _Grid(_with_ends(sizes), knots, np.array(columns).T)


def _with_ends(sizes: FloatArray) -> FloatArray:
    """Return `sizes` between 0 and twice the largest."""
    return np.concatenate([[0.0], sizes, [2 * sizes[-1]]])


def _with_trends(sizes: FloatArray, step_s: FloatArray, steps: FloatArray) -> FloatArray:
    """Return `step_s` between its trends at the ends of `_with_ends`, which may not fall.

    A trend is the least-squares line, weighted by `steps`, of the points up to twice the smallest or down to
    half of the largest size; of the outermost two where there are no more.
    """
    if len(sizes) == 1:
        return np.repeat(step_s, 3)
    low, high = (
        np.polyval(np.polyfit(sizes[near], step_s[near], 1, w=np.sqrt(steps[near])), end)
        for near, end in (
            (sizes <= max(2 * sizes[0], sizes[1]), 0.0),
            (sizes >= min(sizes[-1] / 2, sizes[-2]), 2 * sizes[-1]),
        )
    )
    return np.concatenate([[min(low, step_s[0])], step_s, [max(high, step_s[-1])]])


def _monotone(at: FloatArray, step_s: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return distinct `at`, ascending, and the nearest monotone times; equal ones are averaged first."""
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  (takes half a second, for tables only)

    distinct, index = np.unique(at, return_inverse=True)
    total = np.bincount(index, weights)
    mean = np.bincount(index, weights * step_s) / total
    return distinct, isotonic_regression(mean, weights=total).x


def _extended(at: FloatArray, step_s: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return `step_s` at `wanted`, linear between and beyond the points; one point is a constant."""
    if len(at) == 1:
        return np.full(len(wanted), step_s[0])
    left = np.clip(np.searchsorted(at, wanted) - 1, 0, len(at) - 2)
    slope = np.diff(step_s) / np.diff(at)
    extended: FloatArray = step_s[left] + slope[left] * (wanted - at[left])
    return extended


class ExtrapolatedSteps(UserWarning):
    """Warn that simulated steps lie outside the table of step times."""


def warn_of_extrapolation(calibration: Calibration, steps: Mapping[Phase, IntArray]) -> None:
    """Report the steps outside each table as a warning, once in this process for each table.

    `steps` counts all steps and those outside for each worker, shape (workers, 2).
    """
    for phase, counted in steps.items():
        rows = calibration.prefill_steps if phase == "prefill" else calibration.decode_steps
        total, outside = counted.sum(0).tolist()
        if rows and outside >= _LEAST_SHARE * total > 0 and (phase, rows) not in _WARNED:
            _WARNED.add((phase, rows))
            warnings.warn(
                f"cluster.calibration.{phase}_steps: {outside / total:.1%} of the simulated {phase} steps "
                "lie outside the table and follow the trend of its nearest rows. Measure larger and smaller "
                "steps to cover them.",
                ExtrapolatedSteps,
                stacklevel=2,
            )


_WARNED: set[tuple[Phase, tuple[StepRow, ...]]] = set()
"""Tables of this process that were warned of."""
