"""Check the keys of an engine's YAML against the arguments of the engine's version.

The file is TensorRT-LLM's own list of its arguments, tensorrt_llm/usage/llm_args_golden_manifest.json of the
version in use. It has path, type and allowed values of every argument, except those of free form such as
moe_config.load_balancer. Without a file the keys are compared with those that are known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from tune.engines.trtllm.known_keys import FLAT_KEYS, KNOWN_KEYS
from tune.engines.trtllm.trtllm_engine import Generation
from tune.errors import ConfigurationError

NEAR_KEY_SIMILARITY = 0.85
"""Least similarity of a known key that an unknown one is taken for. Chosen here: moe_confg leads to
moe_config (0.95)."""

_PLAIN_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "NoneType": (),
}
_OUTER = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)
"""Such as Optional[...] and List[...], with what stands between the brackets."""


@dataclass(frozen=True)
class KeyFault:
    """Hold a key that the engine would refuse, or that may be misspelt."""

    path: str
    found: str
    expected: str
    is_certain: bool


@dataclass(frozen=True)
class Argument:
    """Hold the type of an argument as Python writes it, and its allowed values; none where any is allowed.

    They are not all that it takes where the engine reports an allow-list only, as it does of a free text.
    """

    annotation: str
    allowed_values: tuple[str, ...]
    takes_others: bool


@dataclass(frozen=True)
class KeySchema:
    """Hold the keys of each group, and the arguments by path; there are none without a file.

    `is_whole` says that the engine has no other keys in these groups.
    """

    keys: Mapping[str, frozenset[str]]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    is_whole: bool = False


@cache
def read_key_schema(file: str | None, generation: Generation) -> KeySchema:
    """Return the schema in `file`, read once; the keys known here where it is None or the YAML is flat.

    Raises ConfigurationError where the file cannot be read as TensorRT-LLM's list of arguments.
    """
    if generation == "flat":
        return KeySchema({"": FLAT_KEYS}, is_whole=True)
    if file is None:
        return KeySchema(KNOWN_KEYS)
    try:
        rows = json.loads(Path(file).read_text(encoding="utf-8"))["TorchLlmArgs"]
        arguments = {row["path"]: _argument(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"stack.engine_schema: found {file}, which cannot be read ({type(error).__name__}: "
            f"{error}); expected TensorRT-LLM's tensorrt_llm/usage/llm_args_golden_manifest.json, with path, "
            "annotation and allowed_values of each argument in a list TorchLlmArgs."
        ) from None
    keys: dict[str, set[str]] = {}
    for path in arguments:
        parts = path.split(".")
        for depth, part in enumerate(parts):
            keys.setdefault(".".join(parts[:depth]), set()).add(part)
    return KeySchema({group: frozenset(names) for group, names in keys.items()}, arguments)


def check_keys(keys: Mapping[str, Any], schema: KeySchema, group: str = "") -> Iterator[KeyFault]:
    """Yield the keys of an engine's YAML that its version does not have, and values of a wrong type.

    Parameters
    ----------
    keys
        The engine's YAML, or a group of it.
    schema
        What the version has.
    group
        Path of the group; "" for the whole YAML.

    Yields
    ------
    KeyFault
        Certain where a schema from a file has a key of nearly the same name, or the key with another type.
    """
    known = schema.keys[group]
    for key, value in keys.items():
        path = f"{group}.{key}".lstrip(".")
        if key not in known:
            yield from _unknown(key, path, value, known, schema)
        elif isinstance(value, Mapping) and path in schema.keys:
            yield from check_keys(value, schema, path)
        elif path in schema.arguments:
            yield from _value(path, value, schema.arguments[path])


def _argument(row: Mapping[str, Any]) -> Argument:
    return Argument(row["annotation"], tuple(row["allowed_values"]), row.get("converter") == "allowlist")


def near_keys(key: str, names: Collection[str]) -> list[str]:
    """Return the name that `key` is, or may be a misspelling of; none where no name is near."""
    return get_close_matches(key, sorted(names), n=1, cutoff=NEAR_KEY_SIMILARITY)


def _unknown(key: str, path: str, value: Any, known: frozenset[str], schema: KeySchema) -> Iterator[KeyFault]:
    near = near_keys(key, known) or [
        f"{group}.{name}".lstrip(".")
        for group, names in schema.keys.items()
        for name in near_keys(key, names)
    ]
    if near:
        expected = f"{' or '.join(sorted(near))}, a key of the engine"
        yield KeyFault(path, f"{key}: {value!r}", expected, bool(schema.arguments))
    elif schema.is_whole:
        yield KeyFault(path, f"{key}: {value!r}", "a key that TensorRT-LLM has with flat engine YAML", False)
    elif schema.arguments:
        expected = "a key of stack.engine_schema, or one of free form, which it leaves out"
        yield KeyFault(path, f"{key}: {value!r}", expected, False)


def _value(path: str, value: Any, argument: Argument) -> Iterator[KeyFault]:
    """Yield a value that the argument does not take. Null leaves the default."""
    if value is not None and not _takes(argument.annotation, value, argument):
        yield KeyFault(path, repr(value), _expected(argument.annotation, argument), True)


def _takes(annotation: str, value: Any, argument: Argument) -> bool:
    """Return whether `annotation`, that of the argument or a part of it, takes a value."""
    outer, parts = _outer_and_parts(annotation)
    if outer in ("Optional", "Union"):
        return any(_takes(part, value, argument) for part in parts)
    if outer == "Annotated":
        return _takes(parts[0], value, argument)
    if outer in ("List", "Set"):
        return isinstance(value, list | tuple) and all(_takes(parts[0], item, argument) for item in value)
    if outer in _PLAIN_TYPES:
        return type(value) in _PLAIN_TYPES[outer]
    if not argument.allowed_values:
        return True
    return isinstance(value, str) and (argument.takes_others or value in argument.allowed_values)


def _expected(annotation: str, argument: Argument) -> str:
    """Return in words what `annotation` takes."""
    outer, parts = _outer_and_parts(annotation)
    if outer in ("Optional", "Union", "Annotated"):
        kinds = parts[:1] if outer == "Annotated" else [part for part in parts if part != "NoneType"]
        return " or ".join(dict.fromkeys(_expected(kind, argument) for kind in kinds))
    if outer in ("List", "Set"):
        return f"a list, each item {_expected(parts[0], argument)}"
    allowed = ", ".join(argument.allowed_values)
    if argument.takes_others:
        return f"a text, such as one of {allowed}"
    return f"a value of type {outer}" if outer in _PLAIN_TYPES else f"one of {allowed}"


def _outer_and_parts(annotation: str) -> tuple[str, list[str]]:
    """Return the outermost type of an annotation, and the types between its brackets."""
    nested = _OUTER.fullmatch(annotation)
    if nested is None:
        return annotation.removeprefix("<class '").removesuffix("'>"), []
    parts, depth = [""], 0
    for character in nested[2]:
        depth += (character in "[(") - (character in "])")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return nested[1], [part.strip() for part in parts]
