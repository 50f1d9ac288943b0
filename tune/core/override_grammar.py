"""Write configurations in Hydra's override grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


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
    for key in default.keys() - target.keys():
        yield f"~{path}.{key}"
    for key, value in target.items():
        if key in default:
            yield from override_differences(f"{path}.{key}", default[key], value)
        else:
            yield f"+{path}.{key}={override_value(value)}"


def override_value(value: Any) -> str:
    """Return a plain value as Hydra's override grammar writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(override_value(item) for item in value) + "]"
    if isinstance(value, str):
        return value if _is_plain_word(value) else _quote(value)
    return json.dumps(value)


def _quote(text: str) -> str:
    """Return `text` in quotes. A backslash is itself unless it precedes a quote or an interpolation."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)\Z", lambda match: match[1] * 2, text) + "'"


def _is_plain_word(text: str) -> bool:
    """Return whether Hydra reads `text` back as the same string without quotes."""
    return (
        text.isascii()
        and text.replace("_", "").replace("-", "").isalnum()
        and text[0].isalpha()
        and text.lower() not in {"null", "true", "false", "nan", "inf"}
    )
