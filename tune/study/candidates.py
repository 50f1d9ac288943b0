"""The configurations among which a search that learns the rack chooses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
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
from tune.study.optuna_samplers import axis

RATE = "load.target_qps"

MOST_CANDIDATES = 600
"""Of a larger space so many are drawn. Our choice: every proposal goes through what is known of
each."""

_MOST_LOOKED_AT = 20_000

_THE_SAME = ("model", "hardware", "stack", "load", "slo")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Points of a sweep that break no rule, each another configuration; `features` (n, settings), 0 to 1.

    `matters` (2, settings): which of the settings may change what prefill does, and which what decode does.
    `rates`: those of which a trial has one, in rising order; None where the highest is searched for.
    `rate`: the sweep's dimension of it, which the points lack; None without one.
    """

    points: tuple[Point, ...]
    specs: tuple[TrialSpec, ...]
    features: FloatArray
    matters: BoolArray
    rates: tuple[Any, ...] | None = None
    rate: str | None = None


def candidates(base: TrialSpec, sweep: Sweep, seed: int) -> Candidates:
    """All of the sweep, or MOST_CANDIDATES drawn by `seed` with the one of `base` among them.

    Raises ConfigurationError where none breaks no rule, a dimension is continuous, or they differ in more than
    engines and split.
    """
    axes = {name: axis(name, dimension, "surrogate") for name, dimension in sweep.space.items()}
    rate = next((name for name, dimension in sweep.space.items() if dimension.path == RATE), None)
    rates = None
    if base.load.mode == "fixed":
        rates = tuple(sorted(axes.pop(rate) if rate else [base.load.target_qps]))
    sweep = sweep.model_copy(
        update={"space": {name: one for name, one in sweep.space.items() if name != rate}}
    )
    points: list[Point] = []
    specs: dict[str, TrialSpec] = {}
    for point in itertools.islice(_walk(base, sweep, axes, seed), _MOST_LOOKED_AT):
        spec = bind_point(base, sweep, point)
        if spec.trial_id in specs or not spec.split.decode_workers or only_errors(check(spec)):
            continue
        points.append(point)
        specs[spec.trial_id] = spec
        if len(points) == MOST_CANDIDATES:
            break
    if not points:
        raise ConfigurationError("sweep.space: no configuration of it can run; action=preflight says why.")
    found = tuple(specs.values())
    if len({spec.hardware.gpus for spec in found}) > 1:
        raise ConfigurationError(
            "sweep.space: its configurations have different numbers of GPUs; search=surrogate expected one, "
            "since it compares rates. Choose search=tpe."
        )
    first = found[0]
    unlike = [name for name in _THE_SAME if any(getattr(one, name) != getattr(first, name) for one in found)]
    if len({kv_bytes_per_token(spec.model, spec.prefill) for spec in found}) > 1:
        unlike.append("bytes of KV cache a token")
    if unlike:
        raise ConfigurationError(
            f"sweep.space: its configurations differ in {', '.join(unlike)}; search=surrogate expected the "
            "same for all, since what it knows beforehand is of engines and split. Choose search=tpe."
        )
    features = _features(sweep.space, points, found)
    return Candidates(tuple(points), found, features, _matters(sweep.space), rates, rate)


def _matters(space: Mapping[str, Dimension]) -> BoolArray:
    """Of each column of `_features`, to prefill and to decode: all but engine and workers of the other."""
    paths = [dimension.path.removeprefix("split.") for dimension in space.values()]
    to_prefill = [not path.startswith("decode") for path in paths]
    to_decode = [not path.startswith("prefill") for path in paths]
    return np.array([[*to_prefill, False], [*to_decode, True]])


def _walk(base: TrialSpec, sweep: Sweep, axes: Mapping[str, list[Value]], seed: int) -> Iterator[Point]:
    """Points in order, or in a random one where there are more than MOST_CANDIDATES."""
    start = locate_point(base, sweep)
    if start:
        yield start
    sizes = [len(values) for values in axes.values()]
    total = int(np.prod([float(size) for size in sizes]))
    if total <= MOST_CANDIDATES:
        yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
        return
    draws = np.random.default_rng([seed, 3])
    while True:
        yield {name: values[int(draws.integers(len(values)))] for name, values in axes.items()}


def _features(
    space: Mapping[str, Dimension], points: list[Point], specs: tuple[TrialSpec, ...]
) -> FloatArray:
    """A column a dimension, of numbers in logarithms and of other values by their place; one for the workers
    that decode, which may follow from the others."""
    columns = [_column(dimension, [point[name] for point in points]) for name, dimension in space.items()]
    columns.append(np.log([float(spec.split.decode_workers) for spec in specs]))
    table = np.stack(columns, 1)
    width = table.max(0) - table.min(0)
    found: FloatArray = (table - table.min(0)) / np.where(width > 0, width, 1.0)
    return found


def _column(dimension: Dimension, values: list[Value]) -> FloatArray:
    numbers = [
        float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) == len(values) and min(numbers) > 0:
        return np.log(numbers)
    if hasattr(dimension, "values"):
        return np.array([float(list(dimension.values).index(value)) for value in values])
    return np.array(numbers)
