"""Read environment variables of a recipe as the settings of tune hold them."""

from __future__ import annotations

from collections.abc import Mapping

from tune.recipes.document import Section
from tune.spec.environment import is_secret

SECRET_REASON = "by its name a secret, which no file of tune holds: set it in the shell of tune"
_PER_NODE = ("{node}", "{node_id}")


def read_environment(section: Section, key: str) -> dict[str, str | None]:
    """Return the variables under `key`: texts, or None for a secret, which the shell that starts tune has.

    A value that differs from node to node is left out. Raises ConfigurationError for a value that is no text.
    """
    variables: dict[str, str | None] = {}
    part = section.section(key)
    for name in part.content:
        value = _as_text(part, name)
        if any(marker in value for marker in _PER_NODE):
            part.leave(name, "its value differs from node to node")
            continue
        secret = is_secret(name, value)
        variables[name] = None if secret else value
        if secret and value:
            part.leave(name, SECRET_REASON)
    return variables


def words_as_environment(section: Section, key: str) -> dict[str, str | None]:
    """Return the variables of a text such as `A=1 B=2`; none where it is absent.

    Raises ConfigurationError for a word without `=`.
    """
    variables: dict[str, str | None] = {}
    for word in (section.text(key) or "").split():
        name, equals, value = word.partition("=")
        if not equals:
            raise section.wrong(key, "words of the form NAME=VALUE")
        variables[name] = None if is_secret(name, value) else value
    return variables


def merged(*environments: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the variables of all environments; a later one wins."""
    return {name: value for variables in environments for name, value in variables.items()}


def _as_text(section: Section, name: str) -> str:
    value = section.anything(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise section.wrong(name, "a text, in quotes where YAML reads it as something else")
    return str(value)
