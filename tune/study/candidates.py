"""List the configurations among which the surrogate chooses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune.core.arrays import BoolArray, FloatArray
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import Point, bind_point, locate_point
from tune.spec.findings import only_errors
from tune.spec.memory import kv_bytes_per_token
from tune.spec.space import Dimension, Sweep, Value
from tune.spec.trial import TrialSpec
from tune.study.search_space import dimension_values

RATE = "load.target_qps"
"""Setting of the offered rate, queries/s."""

MAX_CANDIDATES = 600
"""Number of candidates drawn from a larger space. Chosen here: a suggestion evaluates each of them."""

_MAX_POINTS_CHECKED = 20_000
"""Number of points that are bound and checked at most, in search of MAX_CANDIDATES valid ones."""

_FIXED_PARTS = ("model", "hardware", "stack", "load", "slo")
"""Fields of a trial that all candidates share: the surrogate models engines and split only."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Hold points of a sweep that break no rule, each a different configuration.

    Attributes
    ----------
    points, specs
        The points without their rate, and the trials they bind to.
    features
        Settings scaled to 0..1, shape (candidates, settings).
    matters
        Which settings may change what prefill does, and which what decode does, shape (2, settings).
    rates
        Rates in ascending order of which each trial runs one; None where each trial searches for its
        capacity.
    rate
        Name of the sweep's dimension for the rate, which the points lack; None where the sweep has none.
    axes
        Values of each dimension but the rate.
    is_complete
        Whether these are all points that can run.
    feature_low, feature_width
        What `scaled` subtracts from each setting, and divides it by, shape (settings,).
    """

    points: tuple[Point, ...]
    specs: tuple[TrialSpec, ...]
    features: FloatArray
    matters: BoolArray
    rates: tuple[Any, ...] | None
    rate: str | None
    axes: Mapping[str, list[Any]]
    is_complete: bool
    feature_low: FloatArray
    feature_width: FloatArray

    def scaled(self, table: FloatArray) -> FloatArray:
        """Return the columns of `feature_table` such that those of the candidates range from 0 to 1."""
        scaled: FloatArray = (table - self.feature_low) / self.feature_width
        return scaled


def candidates(base: TrialSpec, sweep: Sweep, seed: int) -> Candidates:
    """Return all valid points of the sweep, or MAX_CANDIDATES drawn by `seed` with that of `base` among them.

    Raises ConfigurationError where no point is valid, a dimension is continuous, or the configurations differ
    in more than engines and split.
    """
    if sweep.has_aggregated(base.split.aggregated_workers):
        raise ConfigurationError(
            "search=surrogate: found split.aggregated_workers above 0 among the points; expected "
            "prefill and decode pools alone, each of which it predicts by itself. Use search=tpe."
        )
    axes = {name: dimension_values(name, dimension, "surrogate") for name, dimension in sweep.space.items()}
    rate = next((name for name, dimension in sweep.space.items() if dimension.path == RATE), None)
    rates = None
    if base.load.mode == "fixed":
        rates = tuple(sorted(axes.pop(rate) if rate else [base.load.target_qps]))
    sweep = sweep.model_copy(
        update={"space": {name: dimension for name, dimension in sweep.space.items() if name != rate}}
    )
    bind_point(base, sweep, {name: values[0] for name, values in axes.items()})  # refuses unknown paths
    points: list[Point] = []
    by_trial_id: dict[str, TrialSpec] = {}
    for point in itertools.islice(_walk(base, sweep, axes, seed), _MAX_POINTS_CHECKED):
        spec = bind_point(base, sweep, point)
        if spec.trial_id in by_trial_id or not can_run(spec):
            continue
        points.append(point)
        by_trial_id[spec.trial_id] = spec
        if len(points) == MAX_CANDIDATES:
            break
    if not points:
        raise ConfigurationError("sweep.space: no configuration of it can run; action=preflight says why.")
    specs = tuple(by_trial_id.values())
    _require_comparable(specs)
    table = feature_table(axes, points, specs)
    low, width = table.min(0), np.ptp(table, axis=0)
    width = np.where(width > 0, width, 1.0)
    is_complete = _total(axes) <= MAX_CANDIDATES
    return Candidates(
        tuple(points),
        specs,
        (table - low) / width,
        _matters(sweep.space),
        rates,
        rate,
        axes,
        is_complete,
        low,
        width,
    )


def can_run(spec: TrialSpec) -> bool:
    """Return whether a trial has decode workers and breaks no rule."""
    return bool(spec.split.decode_workers) and not only_errors(check(spec))


def _require_comparable(specs: Sequence[TrialSpec]) -> None:
    """Raise ConfigurationError where candidates differ in a setting that the surrogate does not model."""
    if len({spec.hardware.gpus for spec in specs}) > 1:
        raise ConfigurationError(
            "sweep.space: its configurations have different numbers of GPUs; search=surrogate expected one, "
            "since it compares rates. Choose search=tpe."
        )
    first = specs[0]
    unlike = [
        name for name in _FIXED_PARTS if any(getattr(spec, name) != getattr(first, name) for spec in specs)
    ]
    if len({kv_bytes_per_token(spec.model, spec.prefill) for spec in specs}) > 1:
        unlike.append("bytes of KV cache a token")
    if unlike:
        raise ConfigurationError(
            f"sweep.space: its configurations differ in {', '.join(unlike)}; search=surrogate expected the "
            "same for all, since its prior models engines and split only. Choose search=tpe."
        )


def _matters(space: Mapping[str, Dimension]) -> BoolArray:
    """Return which columns of `_features` may affect each pool: all but the other pool's own settings."""
    paths = [dimension.path.removeprefix("split.") for dimension in space.values()]
    to_prefill = [not path.startswith("decode") for path in paths]
    to_decode = [not path.startswith("prefill") for path in paths]
    return np.array([[*to_prefill, False], [*to_decode, True]])


def _walk(base: TrialSpec, sweep: Sweep, axes: Mapping[str, list[Value]], seed: int) -> Iterator[Point]:
    """Yield the point of `base`, then the grid in order, or random points of more than MAX_CANDIDATES."""
    start = locate_point(base, sweep)
    if start:
        yield start
    if _total(axes) <= MAX_CANDIDATES:
        yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
        return
    draws = np.random.default_rng([seed, 3])
    while True:
        yield {name: values[int(draws.integers(len(values)))] for name, values in axes.items()}


def _total(axes: Mapping[str, list[Value]]) -> float:
    """Return the number of points of the grid."""
    return float(np.prod([float(len(values)) for values in axes.values()]))


def feature_table(
    axes: Mapping[str, list[Any]], points: Sequence[Point], specs: Sequence[TrialSpec]
) -> FloatArray:
    """Return one column a dimension and one for the number of decode workers, shape (points, columns).

    Positive numbers enter as logarithms, other values by their position among `axes`. The number of decode
    workers may follow from other dimensions.
    """
    columns = [_column(axis, [point[name] for point in points]) for name, axis in axes.items()]
    columns.append(np.log([float(spec.split.decode_workers) for spec in specs]))
    return np.stack(columns, 1)


def _column(axis: list[Any], values: list[Any]) -> FloatArray:
    """Return the values of one dimension as numbers, shape (points,)."""
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis)
    numbers = np.array(values if is_number else [axis.index(value) for value in values], float)
    return np.log(numbers) if is_number and min(axis) > 0 else numbers
