"""Expand a srt-slurm recipe with a base and overrides into one document for each variant.

Rules: NVIDIA/srt-slurm, docs/overrides.md. Mappings are merged, lists and single values replaced, and null
deletes a key. A `zip_override_` gives one variant for each position of its lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tune.errors import ConfigurationError
from tune.recipes.document import Document, KeyPath

_BASE, _OVERRIDE, _ZIP = "base", "override_", "zip_override_"
_ONE_OF_A_ZIP = re.compile(r"(?P<key>[^\[]+)\[(?P<index>\d+)\]")


def expand(document: Document, selector: str | None) -> list[Document]:
    """Return the variants of a recipe, or the recipe itself where it has none.

    Parameters
    ----------
    document
        The recipe. One with variants has `base` and any of `override_NAME` and `zip_override_NAME`.
    selector
        `base`, the key of a variant, `zip_override_NAME[0]` or a pattern of keys with `*`; None for every
        variant. The base is a variant only where it is named, or alone.

    Returns
    -------
    list[Document]
        One document a variant, each with a name of its own.

    Raises
    ------
    ConfigurationError
        For a selector that fits no variant, a key that is none of these, and lists of different lengths.
    """
    root = document.root()
    if _BASE not in root.content:
        if selector is not None:
            raise ConfigurationError(
                f"recipe: found {document.file}:{selector}; expected {document.file}, which has no base and "
                "overrides to choose from. Nothing was written."
            )
        return [document]
    keys = [key for key in root.content if key.startswith((_OVERRIDE, _ZIP))]
    for key in root.content:
        if key not in (_BASE, "schema", *keys):
            raise document.error((key,), key, f"{_BASE}, {_OVERRIDE}NAME or {_ZIP}NAME")
    if selector == _BASE or (selector is None and not keys):
        return [_merged(document, (), {}, "")]
    return [
        _merged(document, (key,), values, suffix)
        for key, index in _chosen(document, keys, selector)
        for values, suffix in _values(document, key, index)
    ]


def _chosen(document: Document, keys: list[str], selector: str | None) -> list[tuple[str, int | None]]:
    """Return the keys that a selector names, each with the one position that it names, if any."""
    one = _ONE_OF_A_ZIP.fullmatch(selector or "")
    pattern, index = (one["key"], int(one["index"])) if one else (selector or "*", None)
    chosen = [(key, index) for key in keys if fnmatchcase(key, pattern)]
    if not chosen:
        raise ConfigurationError(
            f"recipe: found {document.file}:{selector}; expected one of {', '.join([_BASE, *keys])}. "
            "Nothing was written."
        )
    return chosen


def _values(document: Document, key: str, index: int | None) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield what a key overrides, and what its variants' names end in."""
    values = document.mapping_at((key,), document.content[key])
    if not key.startswith(_ZIP):
        yield values, key.removeprefix(_OVERRIDE)
        return
    lengths = {len(found) for found in _lists(values)}
    several = sorted(lengths - {1})
    if len(several) > 1:
        found = f"lists of {' and '.join(map(str, several))} values"
        raise document.error((key,), found, "lists of one length, or of one value for all")
    count = several[0] if several else 1
    for position in range(count) if index is None else [index]:
        if position >= count:
            raise document.error((key,), f"{count} variants", f"at least {position + 1} for [{position}]")
        yield _at(values, position), f"{key.removeprefix(_ZIP)}_{position}"


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _lists(inner)
    elif isinstance(value, list):
        yield value


def _at(value: Any, position: int) -> Any:
    """Return what one variant has of a value whose lists are read in parallel."""
    if isinstance(value, Mapping):
        return {key: _at(inner, position) for key, inner in value.items()}
    if isinstance(value, list):
        return value[position] if len(value) > 1 else value[0]
    return value


def _merged(document: Document, key: KeyPath, values: Mapping[str, Any], suffix: str) -> Document:
    """Return the base with `values`, which stand below `key`, and lines of both."""
    base = document.mapping_at((_BASE,), document.content[_BASE])
    content = _merge(base, values)
    if "schema" in document.content:
        content["schema"] = document.content["schema"]
    if suffix and "name" not in values:
        content["name"] = f"{base.get('name')}_{suffix}"
    lines = {place[1:]: line for place, line in document.lines.items() if place[:1] == (_BASE,)}
    if key:
        lines |= {place[1:]: line for place, line in document.lines.items() if place[:1] == key}
    return Document(document.file, content, lines)


def _merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
