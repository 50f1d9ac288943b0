"""Translate the dimensions of a sweep and its points to Optuna and back."""

from __future__ import annotations

import json
from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tune.errors import ConfigurationError
from tune.spec.bind import Point
from tune.spec.space import (
    ChoiceDimension,
    Dimension,
    FloatDimension,
    IntDimension,
    OrderedDimension,
    Scalar,
    Value,
)


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each dimension. Raises ConfigurationError for one without values."""
    return {name: _distribution(name, dimension) for name, dimension in space.items()}


def to_raw(space: Mapping[str, Dimension], point: Point) -> dict[str, Scalar]:
    """Return a point as Optuna's parameters: values of an ordered dimension as index, lists as JSON."""
    return {name: _to_raw(dimension, point[name]) for name, dimension in space.items()}


def to_point(space: Mapping[str, Dimension], raw: Mapping[str, Scalar]) -> Point:
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
            return CategoricalDistribution([as_scalar(value) for value in dimension.values])


def _to_value(dimension: Dimension, raw: Scalar) -> Value:
    """Return the value that one of Optuna's parameters stands for."""
    match dimension:
        case FloatDimension() if dimension.step is not None:
            return round(float(raw or 0.0), 12)
        case OrderedDimension():
            return dimension.values[int(raw or 0)]
        case ChoiceDimension():
            return next((value for value in dimension.values if as_scalar(value) == raw), raw)
        case _:
            return raw


def _to_raw(dimension: Dimension, value: Value) -> Scalar:
    """Return one value as Optuna's parameter."""
    return dimension.values.index(value) if isinstance(dimension, OrderedDimension) else as_scalar(value)


def as_scalar(value: Value) -> Scalar:
    """Return a value as Optuna's categories may be: a list as its JSON text."""
    return json.dumps(value) if isinstance(value, tuple) else value
