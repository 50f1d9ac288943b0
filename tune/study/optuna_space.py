"""Translate the dimensions of a sweep and its points to Optuna and back."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tune.errors import ConfigurationError
from tune.spec.bind import Point
from tune.spec.space import Dimension, FloatDimension, IntDimension, OrderedDimension, Value


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each dimension. Raises ConfigurationError for one without values."""
    return {name: _distribution(name, dimension) for name, dimension in space.items()}


def to_raw(space: Mapping[str, Dimension], point: Point) -> dict[str, Value]:
    """Return a point as Optuna's parameters: values of an ordered dimension as their index."""
    return {name: _to_raw(dimension, point[name]) for name, dimension in space.items()}


def to_point(space: Mapping[str, Dimension], raw: Mapping[str, Value]) -> Point:
    """Return Optuna's parameters as a point."""
    return {name: _to_value(space[name], value) for name, value in raw.items()}


def _distribution(name: str, dimension: Dimension) -> BaseDistribution:
    """Return Optuna's distribution of one dimension."""
    match dimension:
        case IntDimension():
            return IntDistribution(dimension.low, dimension.high, step=dimension.step)
        case FloatDimension():
            return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
        case OrderedDimension():
            return IntDistribution(0, len(dimension.values) - 1)
        case _:
            if not dimension.values:
                raise ConfigurationError(f"sweep.space.{name}.values: found none; expected at least one.")
            return CategoricalDistribution(dimension.values)


def _to_value(dimension: Dimension, raw: Value) -> Value:
    """Return the value that one of Optuna's parameters stands for."""
    if isinstance(dimension, FloatDimension) and dimension.step is not None:
        return round(float(raw), 12)
    return dimension.values[int(raw)] if isinstance(dimension, OrderedDimension) else raw


def _to_raw(dimension: Dimension, value: Value) -> Value:
    """Return one value as Optuna's parameter."""
    return dimension.values.index(value) if isinstance(dimension, OrderedDimension) else value
