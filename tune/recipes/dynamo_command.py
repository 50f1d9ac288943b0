"""Read the command line of a container that runs Dynamo: its module, its options, and what these say."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune.engines.base import EngineFileReader
from tune.recipes.document import Document, KeyPath, Section, shown
from tune.recipes.kubernetes_pod import ESCAPED
from tune.spec.environment import without_secrets
from tune.spec.split import Role

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_CONTINUED = re.compile(r"\\\n")
_BEYOND = re.compile(r"\|\|?|&&?|;|\d?>.*")
"""Matches a word with which a shell ends a command or redirects its output."""

_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)

_FILE, _OVERRIDE = "--extra-engine-args", "--override-engine-args"


@dataclass(frozen=True)
class DynamoCommand:
    """Hold a command line of Dynamo.

    `prefix` stands before the interpreter, such as numactl with its arguments. `module` is what python3
    runs, `words` stand behind it, `rest` is what a shell does beyond, such as a pipe into a file, and
    `options` has the first value of each option in `words` ("" for none).
    """

    prefix: tuple[str, ...]
    module: str | None
    words: tuple[str, ...]
    rest: tuple[str, ...]
    options: Mapping[str, str]


def read_command(container: Section, env: Mapping[str, str | None]) -> DynamoCommand:
    """Return the command of a container, with variables of `env` put in.

    Raises ConfigurationError for a list whose entries are no texts.
    """
    words = [*_texts(container, "command"), *_texts(container, "args")]
    if len(words) > 2 and words[0].endswith("sh") and words[1] == "-c":
        words = shlex.split(_COMMENT.sub("", _CONTINUED.sub(" ", words[2])))
    filled = [_VARIABLE.sub(lambda found: env.get(found[1] or found[2]) or found[0], word) for word in words]
    return command_of_words(filled)


def command_of_words(words: Sequence[str]) -> DynamoCommand:
    """Return what the words of a command line say."""
    start = words.index("-m") if "-m" in words[:-1] else None
    while start is not None and not words[start + 1].startswith("dynamo."):
        start = words.index("-m", start + 1) if "-m" in words[start + 1 : -1] else None
    module = words[start + 1] if start is not None else None
    behind = tuple(words[start + 2 :]) if start is not None else tuple(words)
    end = next((index for index, word in enumerate(behind) if _BEYOND.fullmatch(word)), len(behind))
    behind, rest = behind[:end], behind[end:]
    prefix = tuple(words[: start - 1]) if start else ()
    return DynamoCommand(prefix, module, behind, rest, _options(behind))


def _options(words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            options[name] = value
        elif name:
            options[name] = word
            name = ""
    return options


def keys_of_worker(
    role: Role,
    command: DynamoCommand,
    reader: EngineFileReader,
    file_keys: Mapping[str, Any],
    container: Section,
) -> dict[str, Any]:
    """Return the keys that reach the engine: options, over them its file, over that the override.

    Parameters
    ----------
    role, command
        The worker's pool and its command.
    reader
        Reads the engine's options.
    file_keys
        The keys of the engine's file.
    container
        Where the command stands, for errors.

    Returns
    -------
    dict[str, Any]
        The keys.

    Raises
    ------
    ConfigurationError
        For an option that is no number, or an override that is no JSON.
    """
    try:
        keys = merged_keys(reader.keys_of_words(role, command.words), file_keys)
    except ValueError as error:
        raise _wrong(container, str(error), "a number") from None
    override = command.options.get(_OVERRIDE)
    if override and reader.has_file:
        try:
            keys = merged_keys(keys, json.loads(override))
        except (ValueError, AttributeError):
            raise _wrong(container, f"{_OVERRIDE} {without_secrets(override)}", "a mapping in JSON") from None
    return keys


def other_options(role: Role, command: DynamoCommand, reader: EngineFileReader) -> dict[str, str]:
    """Return the options of a worker that are no keys of its engine; where all are, there is none."""
    if not reader.has_file:
        return {}
    return {
        name: value
        for name, value in command.options.items()
        if name not in (_FILE, _OVERRIDE) and not reader.keys_of_words(role, [name, "0"])
    }


def merged_keys(keys: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `keys` with those of `over` in their place; mappings are merged."""
    merged = dict(keys)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merged_keys(merged[name], value) if both else value
    return merged


def _texts(container: Section, key: str) -> list[str]:
    texts = []
    for place, value in container.items(key):
        if not isinstance(value, str):
            raise container.document.error(place, shown(value), "a text, in quotes")
        container.document.used.add(place)
        texts.append(value.replace(ESCAPED, "$("))
    return texts


def _wrong(container: Section, found: str, expected: str) -> Exception:
    document: Document = container.document
    place: KeyPath = (*container.place, "args")
    return document.error(place, found, expected)
