"""Find where two nested mappings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaf_differences(
    left: Mapping[str, Any], right: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Compare two nested mappings leaf by leaf.

    Parameters
    ----------
    left, right
        The mappings. A key that one of them lacks counts as None there.
    path
        Prefix of every path that is yielded.

    Yields
    ------
    tuple[str, Any, Any]
        Dotted path, left value and right value of a leaf that differs; in the order of `left`, then the
        keys that only `right` has.
    """
    for key in {**left, **right}:
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from leaf_differences(a, b, f"{path}{key}.")
        elif a != b:
            yield f"{path}{key}", a, b
