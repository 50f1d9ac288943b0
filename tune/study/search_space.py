"""Enumerate the values of a sweep's dimensions and the points of its grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice, product
from typing import Any, cast

import numpy as np

from tune.errors import ConfigurationError
from tune.spec.bind import Point
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value

_CONTINUOUS_VALUES = 33
"""Number of values that stand for a continuous range."""


def dimension_values(name: str, dimension: Dimension, search: str) -> list[Any]:
    """Return every value of the dimension `name`, in order.

    Raises ConfigurationError for a continuous range, which `search` cannot enumerate.
    """
    match dimension:
        case IntDimension():
            return list(range(dimension.low, dimension.high + 1, dimension.step))
        case FloatDimension():
            if dimension.step is None:
                raise ConfigurationError(
                    f"sweep.space.{name}: found a continuous range; search={search} expected a step "
                    f"(+sweep.space.{name}.step=0.5), or choose search=tpe."
                )
            count = int((dimension.high - dimension.low) / dimension.step + 1e-9)
            return [round(dimension.low + k * dimension.step, 12) for k in range(count + 1)]
        case _:
            return list(dimension.values)


def number_of_points(space: Mapping[str, Dimension]) -> int | None:
    """Return the number of points of the full grid; None where a dimension is continuous."""
    if any(isinstance(dimension, FloatDimension) and dimension.step is None for dimension in space.values()):
        return None
    return math.prod(len(dimension_values(name, dimension, "")) for name, dimension in space.items())


def grid_point(space: Mapping[str, Dimension], position: int) -> Point | None:
    """Return the point at `position` of the full grid, last dimension fastest; None past its end."""
    axes = [dimension_values(name, dimension, "grid") for name, dimension in space.items()]
    values = next(islice(product(*axes), position, None), None)
    return None if values is None else dict(zip(space, values, strict=True))


def sample_values(dimension: Dimension, most: int) -> list[Any]:
    """Return the values of `dimension`; `most` of them, from end to end, where it has more."""
    if isinstance(dimension, FloatDimension) and dimension.step is None:
        space = np.geomspace if dimension.log else np.linspace
        return [float(value) for value in space(dimension.low, dimension.high, min(most, _CONTINUOUS_VALUES))]
    values = dimension_values("", dimension, "")
    if len(values) <= most:
        return values
    return [values[round(index)] for index in np.linspace(0, len(values) - 1, most)]


def typed_value(dimension: Dimension, value: Value) -> Value:
    """Return `value` in the type that its dimension has, as it goes on record."""
    match dimension:
        case IntDimension():
            return int(cast("int", value))
        case FloatDimension():
            number = float(cast("float", value))
            return number if dimension.step is None else round(number, 12)
        case _:
            return next(known for known in dimension.values if known == value)
