"""Name file and line of a YAML file of the user that cannot be read or resolved."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tune.errors import ConfigurationError

_TIME = re.compile(r":\s+\d+(:[0-5]?\d)+\s*(#|$)", re.MULTILINE)
"""A line that may hold a number of base 60. Source: YAML 1.1, https://yaml.org/type/int.html."""


_MOST_VALUES = 100_000
"""Most values of a YAML file."""


def explain_encoding(error: UnicodeDecodeError, config_dirs: Sequence[str]) -> str:
    """Return which YAML file of `config_dirs` is not UTF-8."""
    for path in yaml_files(config_dirs):
        content = path.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as found:
            line = content[: found.start].count(b"\n") + 1
            return f"{path}, line {line}: found bytes that are not UTF-8; expected a text file in UTF-8."
    return f"A file of the configuration is not UTF-8: {error}."


def refuse_base_60(config_dirs: Sequence[str]) -> None:
    """Raise ConfigurationError where YAML reads a time without quotes, such as 2:00:00, as a number."""
    for file in yaml_files(config_dirs):
        text = file.read_text(encoding="utf-8", errors="replace")
        if not _TIME.search(text):
            continue
        try:
            scalars = list(_scalars(yaml.compose(text, Loader=yaml.SafeLoader), ""))
        except yaml.YAMLError:
            continue
        for path, node in scalars:
            if node.style is None and node.tag.endswith((":int", ":float")) and ":" in node.value:
                number = yaml.safe_load(node.value)
                raise ConfigurationError(
                    f"{file}, line {node.start_mark.line + 1}: {path}: found {node.value} without "
                    f"quotes, which YAML reads as the number {number}; expected '{node.value}'."
                )


def refuse_repeating_aliases(config_dirs: Sequence[str]) -> None:
    """Raise ConfigurationError where aliases make a YAML file longer than any configuration, or endless."""
    for file in yaml_files(config_dirs):
        text = file.read_text(encoding="utf-8", errors="replace")
        if "*" not in text:
            continue
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            continue
        values = _values(root, {}) if root else 0
        if values > _MOST_VALUES:
            found = f"{values:.3g} values" if values < math.inf else "a value that contains itself"
            raise ConfigurationError(
                f"{file}: found {found} once its aliases (*name) are put in; expected at most {_MOST_VALUES}."
            )


def line_of_interpolation(path: str | None, message: str, config_dirs: Sequence[str]) -> str:
    """Return ` (FILE, line N)` of an interpolation that does not resolve; empty where it is in no file.

    Parameters
    ----------
    path
        The setting with the interpolation; its last parts are those in the file. None where it is unknown.
    message
        The error, which names what does not resolve.
    config_dirs
        The user's folders of configuration.

    Returns
    -------
    str
        The place in brackets.
    """
    for file in yaml_files(config_dirs):
        try:
            root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        for found, node in _scalars(root, ""):
            if "${" not in node.value:
                continue
            named = any(part in message for part in re.findall(r"[\w.]+", node.value))
            if named and (path is None or f".{path}".endswith(f".{found}")):
                return f" ({file}, line {node.start_mark.line + 1})"
    return ""


def yaml_files(config_dirs: Sequence[str]) -> Iterator[Path]:
    """Yield the YAML files below the user's folders of configuration, in order."""
    for folder in config_dirs:
        yield from sorted(Path(folder).rglob("*.yaml"))


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many nodes a tree has once every alias is the node it names; `known` holds those counted."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def _scalars(node: yaml.Node | None, path: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield path and node of every scalar below a node of YAML."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            yield from _scalars(value, f"{path}.{name}" if path else name)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _scalars(item, f"{path}[{position}]")
    elif isinstance(node, yaml.ScalarNode):
        yield path, node
