"""Find the engine key whose value has not the shape that reading a recipe needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Shape = Literal[
    "a whole number, 1 or more",
    "a whole number from 1 to 10000",
    "a list of whole numbers, 1 or more",
    "a mapping, one `key: value` a line",
    "a text",
]
"""What is expected of a value, in words; null stands for an absent key."""

COUNT: Shape = "a whole number, 1 or more"
GPUS: Shape = "a whole number from 1 to 10000"
COUNTS: Shape = "a list of whole numbers, 1 or more"
MAPPING: Shape = "a mapping, one `key: value` a line"
TEXT: Shape = "a text"

MOST_GPUS = 10_000
"""Most GPUs that share a layer, or follow each other; more than any rack has. Chosen here."""

KeyPlace = tuple[str, ...]
"""The names of the groups around a key, and its own."""


def misshapen_key(
    keys: Mapping[str, Any], shapes: Iterable[tuple[KeyPlace, Shape]]
) -> tuple[KeyPlace, Shape] | None:
    """Return the first of `shapes` that `keys` do not have; those of groups stand before what is in them."""
    for place, shape in shapes:
        value: Any = keys
        for name in place:
            value = value.get(name) if value is not None else None
        if value is not None and not _has(value, shape):
            return place, shape
    return None


def _has(value: Any, shape: Shape) -> bool:
    if shape == MAPPING:
        return isinstance(value, Mapping)
    if shape == TEXT:
        return isinstance(value, str)
    if shape == COUNTS:
        return isinstance(value, list | tuple) and all(_has(size, COUNT) for size in value)
    return type(value) is int and 1 <= value <= (MOST_GPUS if shape == GPUS else value)
