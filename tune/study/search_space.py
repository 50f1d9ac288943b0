"""Enumerate the values of a sweep's dimensions and the points of its grid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, product
from typing import Any

from tune.errors import ConfigurationError
from tune.spec.bind import Point
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value


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


def grid_point(space: Mapping[str, Dimension], position: int) -> Point | None:
    """Return the point at `position` of the full grid, last dimension fastest; None past its end."""
    axes = [dimension_values(name, dimension, "grid") for name, dimension in space.items()]
    values = next(islice(product(*axes), position, None), None)
    return None if values is None else dict(zip(space, values, strict=True))


def typed_value(dimension: Dimension, value: Value) -> Value:
    """Return `value` in the type that its dimension has, as it goes on record."""
    match dimension:
        case IntDimension():
            return int(value)
        case FloatDimension():
            return round(float(value), 12) if dimension.step is not None else float(value)
        case _:
            return next(known for known in dimension.values if known == value)
