"""Find where two nested mappings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaf_differences(
    left: Mapping[str, Any], right: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted path, left value and right value of every leaf that differs.

    A key that one side lacks counts as None there. Keys come in the order of `left`, then those that only
    `right` has. `path` is put before every path.
    """
    for key in {**left, **right}:
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from leaf_differences(a, b, f"{path}{key}.")
        elif a != b:
            yield f"{path}{key}", a, b
