"""Take the keys of an engine from a document, and refuse values that its reader cannot work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune.engines.registry import file_reader
from tune.recipes.document import Document, KeyPath, Section


def required_keys(section: Section, key: str, engine: str) -> dict[str, Any]:
    """Return the mapping under `key`, the keys of `engine`.

    Raises ConfigurationError where there are none, or a value is not of the kind that its key has.
    """
    keys = section.mapping(key)
    if not keys:
        raise section.missing(key, "the keys of the engine's YAML")
    require_shapes(section.document, (*section.place, key), keys, engine)
    return keys


def require_shapes(document: Document, place: KeyPath, keys: Mapping[str, Any], engine: str) -> None:
    """Raise ConfigurationError where one of `keys`, which stand at `place`, is not of its kind."""
    misshapen = file_reader(engine).misshapen_key(keys)
    if misshapen is None:
        return
    path, expected = misshapen
    value: Any = keys
    for name in path:
        value = value[name]
    at = (*place, *path)
    found = document.shown(at, value)
    raise document.error(at, f"the text {found}" if isinstance(value, str) else found, expected)
