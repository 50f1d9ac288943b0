"""Explain an override that Hydra's grammar cannot read, or that holds several values."""

from __future__ import annotations

import re
import shlex

from tune.core.override_grammar import override_value

_PATH = re.compile(r"\+{0,2}[\w@./-]+")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def explain_several_values(override: str) -> str:
    """Return why an override may not hold several values, and how to write a list, a text and a sweep."""
    path, _, value = override.partition("=")
    items = value.partition("(")[2].rpartition(")")[0] if value.endswith(")") else value
    return (
        f"{override}: found several values; expected one. Write {path}=[{items}] for a list, "
        f"{_in_shell_quotes(f'{path}={override_value(value)}')} for a text. To measure each of several "
        "values, name a sweep with +sweep=NAME (docs/how-to/sweeps.md)."
    )


def explain_unreadable(override: str, message: str) -> str:
    """Return what is wrong with an override that does not parse; `message` is Hydra's.

    Where the value is text with special characters, the line has the override with the text in quotes.
    """
    path, equals, value = override.partition("=")
    if not equals:
        return f"{override}: found a word without =; expected {path.lstrip('+~')}=VALUE."
    if not _PATH.fullmatch(path):
        return f"{override}: found {path!r} before =; expected a setting, such as load.target_qps."
    open_bracket = _open_bracket(value)
    if open_bracket:
        closing = _CLOSING[open_bracket]
        return f"{override}: found {open_bracket} that is not closed; expected {closing} after it."
    text = value.strip("'\"")
    unknown = re.search(r"Unknown function '(\w+)'", message)
    found = f"{unknown[1]}(...), which is no function" if unknown else _unreadable_part(override, message)
    quoted = _in_shell_quotes(f"{path}={override_value(text)}")
    return f"{override}: found {found}; expected text with special characters in quotes: {quoted}."


def _in_shell_quotes(override: str) -> str:
    """Return an override as a shell reads it, in double quotes where that is enough."""
    if re.search(r'["$`\\!]', override):
        return shlex.quote(override)
    return f'"{override}"'


def _open_bracket(value: str) -> str | None:
    """Return the bracket of `value` that is not closed, outside of quotes; None where all are."""
    stack: list[str] = []
    quote = ""
    for character in value:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _CLOSING:
            stack.append(character)
        elif stack and character == _CLOSING[stack[-1]]:
            stack.pop()
    return stack[-1] if stack and not quote else None


def _unreadable_part(override: str, message: str) -> str:
    """Return the part of an override at which its reader stops."""
    if "LexerNoViableAltException" in message:
        lines = message.splitlines()
        column = len(lines[1]) - len("LexerNoViableAltException: ") - 1 if len(lines) > 1 else 0
        rest = override[column:]
        if rest[:1] in "'\"":
            return f"{rest[:1]} that is not closed"
        return f"{rest[:1]!r}" if rest else "a value that cannot be read"
    stopped = re.search(r"(?:mismatched input|extraneous input|missing \w+ at) '(.*?)'", message)
    return f"{stopped[1]!r} where the value ends" if stopped else "a value that cannot be read"
