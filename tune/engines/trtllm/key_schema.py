"""Check the keys of an engine's YAML against the arguments of the engine's version.

The file is TensorRT-LLM's own list of its arguments, tensorrt_llm/usage/llm_args_golden_manifest.json of the
version in use. It has path, type and allowed values of every argument, except those of free form such as
moe_config.load_balancer. Without a file the keys are compared with those that are known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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

_PLAIN_TYPES: Mapping[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float)}
_PLAIN_ANNOTATION = re.compile(r"(?:<class '|Optional\[)(?:Annotated\[)?(bool|int|float)(?:'>|[\],])")
"""Such as <class 'int'>, Optional[float] and Optional[Annotated[int, Gt(gt=0)]]."""


@dataclass(frozen=True)
class KeyFault:
    """Hold a key that the engine would refuse, or that may be misspelt."""

    path: str
    found: str
    expected: str
    is_certain: bool


@dataclass(frozen=True)
class Argument:
    """Hold the type of an argument as Python writes it, and its allowed values; none where any is allowed."""

    annotation: str
    allowed_values: tuple[str, ...]


@dataclass(frozen=True)
class KeySchema:
    """Hold the keys of each group, and the arguments by path; there are none without a file."""

    keys: Mapping[str, frozenset[str]]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@cache
def read_key_schema(file: str | None, generation: Generation) -> KeySchema:
    """Return the schema in `file`, read once; the keys known here where it is None or the YAML is flat.

    Raises ConfigurationError where the file cannot be read as TensorRT-LLM's list of arguments.
    """
    if generation == "flat":
        return KeySchema({"": FLAT_KEYS})
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
    """Return one argument, with its allowed values where they are all that it takes.

    An allow-list is what the engine reports of a free text, and the literals of a union are beside other
    types: use_kv_cache_manager_v2 is a bool or auto.
    """
    partial = row.get("converter") == "allowlist" or row["annotation"].startswith("Union[")
    return Argument(row["annotation"], () if partial else tuple(row["allowed_values"]))


def _unknown(key: str, path: str, value: Any, known: frozenset[str], schema: KeySchema) -> Iterator[KeyFault]:
    near = get_close_matches(key, sorted(known), n=1, cutoff=NEAR_KEY_SIMILARITY)
    if near:
        yield KeyFault(path, f"{key}: {value!r}", f"{near[0]}, a key of the engine", bool(schema.arguments))
    elif schema.arguments:
        expected = "a key of stack.engine_schema, or one of free form, which it leaves out"
        yield KeyFault(path, f"{key}: {value!r}", expected, False)


def _value(path: str, value: Any, argument: Argument) -> Iterator[KeyFault]:
    """Yield a value that is none of the allowed ones, or of another plain type. Null leaves the default."""
    if value is None:
        return
    listed = value if isinstance(value, list) else [value]
    wrong = [item for item in listed if argument.allowed_values and item not in argument.allowed_values]
    if wrong:
        yield KeyFault(path, repr(wrong[0]), f"one of {', '.join(argument.allowed_values)}", True)
        return
    plain = _PLAIN_ANNOTATION.match(argument.annotation)
    if plain and type(value) not in _PLAIN_TYPES[plain[1]]:
        yield KeyFault(path, repr(value), f"a value of type {plain[1]}", True)
