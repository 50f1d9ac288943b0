"""Write configurations in Hydra's override grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

_PATH_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Key of a mapping that may be a part of a path in an override."""

_MAPPING_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
"""Key of a mapping that the grammar reads back as the same text; keys have no quotes in it."""

_KEYWORDS = {"null", "true", "false", "nan", "inf"}

JSON_RESOLVER = "json"
"""Name of the resolver of mappings whose keys the grammar cannot express: `${json:TEXT}`."""


def override_differences(path: str, default: Any, target: Any) -> Iterator[str]:
    """Yield the overrides that turn one plain value into another.

    Parameters
    ----------
    path
        Setting that holds the value.
    default, target
        The value without overrides, and the value with them.

    Yields
    ------
    str
        One override for each leaf that differs.
    """
    if default == target and type(default) is type(target):
        return
    if not (isinstance(default, dict) and isinstance(target, dict)):
        yield f"{path}={override_value(target)}"
        return
    surplus = sorted(default.keys() - target.keys())
    is_path = all(_PATH_PART.fullmatch(key) for key in default.keys() | target.keys())
    if not is_path or any(default[key] is None for key in surplus):  # Hydra deletes no key that is null
        yield from (f"~{path}", f"+{path}={override_value(target)}")
        return
    for key in surplus:
        yield f"~{path}.{key}"
    for key, value in target.items():
        if key in default:
            yield from override_differences(f"{path}.{key}", default[key], value)
        else:
            yield f"+{path}.{key}={override_value(value)}"


def override_value(value: Any) -> str:
    """Return a plain value as Hydra's override grammar writes it."""
    if isinstance(value, dict):
        if not all(_is_mapping_key(key) for key in value):
            return _json_text(value)
        return "{" + ",".join(f"{key}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(override_value(item) for item in value) + "]"
    if isinstance(value, str):
        return value if _is_plain_word(value) else _quote(value)
    return json.dumps(value)


def json_mapping(text: str) -> Any:
    """Return the mapping that `${json:TEXT}` stands for; TEXT is JSON in percent encoding (RFC 3986)."""
    return json.loads(unquote(text))


def _json_text(value: Mapping[str, Any]) -> str:
    """Return a mapping with any keys as an interpolation that `json_mapping` reads."""
    return f"${{{JSON_RESOLVER}:{quote(json.dumps(value), safe='').replace('~', '%7E')}}}"


def _quote(text: str) -> str:
    """Return `text` in quotes. A backslash is itself unless it precedes a quote or an interpolation."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)\Z", lambda match: match[1] * 2, text) + "'"


def _is_mapping_key(key: str) -> bool:
    """Return whether the grammar reads `key` back as the same text."""
    return _MAPPING_KEY.fullmatch(key) is not None and key.lower() not in _KEYWORDS


def _is_plain_word(text: str) -> bool:
    """Return whether Hydra reads `text` back as the same string without quotes."""
    return (
        text.isascii()
        and text.replace("_", "").replace("-", "").isalnum()
        and text[0].isalpha()
        and text.lower() not in _KEYWORDS
    )
