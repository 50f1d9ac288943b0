"""List the settings that have new names, and recognise the old ones on the command line and in YAML files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RENAMED_SETTINGS: Mapping[str, str] = {
    "load.length_seed": "load.shuffle_seed",
    "load.bracket_qps": "load.rate_range_qps",
    "search.beat_best": "search.early_stop",
    "study.incumbent": "study.baseline",
    "sweep.rest_to_decode": "sweep.fill_decode",
}
"""Old path of a setting -> new path. Version 0.2.0."""

RENAMED_VALUES: Mapping[str, str] = {
    "search=calibrated": "search=surrogate",
    "search.name=calibrated": "search.name=surrogate",
}
"""Old setting with its value -> new one. Version 0.2.0."""


def renamed_in_overrides(overrides: Sequence[str]) -> list[str]:
    """Return one line for each override that uses an old name; [] where none does."""
    return [line for override in overrides for line in _renamed(*_parts(override))]


def renamed_in_tree(tree: Mapping[str, Any]) -> list[str]:
    """Return one line for each old name in a composed configuration, whichever YAML file it comes from.

    A dimension of a sweep may name an old setting as its path, too.
    """
    lines = [line for path, value in _leaves("", tree) for line in _renamed(path, value)]
    space = (tree.get("sweep") or {}).get("space") if isinstance(tree.get("sweep"), dict) else None
    for name, dimension in space.items() if isinstance(space, dict) else ():
        path = dimension.get("path") if isinstance(dimension, dict) else None
        if isinstance(path, str) and path in RENAMED_SETTINGS:
            lines.append(f"sweep.space.{name}.path={path}: renamed to {RENAMED_SETTINGS[path]}")
    return lines


def _parts(override: str) -> tuple[str, str]:
    """Return path and value of an override in Hydra's grammar, without prefix, quotes and brackets.

    Hydra takes the options of a group in brackets, too.
    """
    path, _, value = override.lstrip("+~").partition("=")
    return path, value.strip("[] '\"")


def _renamed(path: str, value: object) -> Iterator[str]:
    """Yield the renamed parts of one setting and its value."""
    assignment = f"{path}={value}"
    if path in RENAMED_SETTINGS:
        yield f"{path}: renamed to {RENAMED_SETTINGS[path]}"
    elif assignment in RENAMED_VALUES:
        yield f"{assignment}: renamed to {RENAMED_VALUES[assignment]}"


def _leaves(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield path and value of every setting, groups included."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{key}.", value)
