"""Write changes of a sweep as overrides."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import cast

from tune.core.override_grammar import override_value
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value


def overrides_for(name: str, dimension: Dimension, values: Sequence[Value]) -> str:
    """Return, for a shell, the overrides that give a dimension other values.

    Parameters
    ----------
    name
        Name of the dimension in its sweep.
    dimension
        The dimension as it is.
    values
        The values that it gets. A range gets the least and the greatest of them as its ends.

    Returns
    -------
    str
        Overrides with a space between two; empty where a range keeps its ends.
    """
    path = f"sweep.space.{name}"
    if isinstance(dimension, IntDimension | FloatDimension):
        numbers = [cast("float", value) for value in values]
        ends = {"low": min(numbers), "high": max(numbers)}
        changed = {end: value for end, value in ends.items() if value != getattr(dimension, end)}
        return " ".join(f"{path}.{end}={override_value(value)}" for end, value in changed.items())
    return shlex.quote(f"{path}.values={listed_values(values)}")


def listed_values(values: Iterable[Value]) -> str:
    """Return values in Hydra's grammar, such as [1024,null,[1,2]]."""
    return override_value([list(value) if isinstance(value, tuple) else value for value in values])
