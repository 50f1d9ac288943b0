"""Describe how the software of the nodes validates a plan before any worker starts, and what it answers.

A plan has the description as ARGUMENT_CHECK_FILE; tune/deploy/check_arguments.py reads it on a node and
prints the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.spec.base import FrozenModel

ARGUMENT_CHECK_FILE, ARGUMENT_CHECK_SCRIPT = "argument_check.json", "check_arguments.py"

_BEGINNING = '{"argument_check":'


class FileCheck(FrozenModel):
    """Name what validates a settings file of an engine.

    `classes` are classes of arguments, `MODULE:NAME` in order of preference, and `given` their arguments
    beside those in the file. `merge` are functions that add the file's arguments to others as the engine
    does, in order of preference; without one the file's arguments are added as they are.
    """

    file: str
    classes: tuple[str, ...]
    merge: tuple[str, ...] = ()
    given: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Validators:
    """Name what an engine's own software has for validation; nothing by default.

    `parsers`: for a program that `python3 -m` runs, functions that parse its command line from sys.argv,
    `MODULE:NAME` in order of preference. `packages`: distributions whose versions are reported.
    """

    parsers: Mapping[str, tuple[str, ...]]
    files: tuple[FileCheck, ...] = ()
    packages: tuple[str, ...] = ()


class CommandCheck(FrozenModel):
    """Hold a command line, `python3 -m` `program` `arguments`, with its `env`, and what parses it."""

    name: str
    program: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    parsers: tuple[str, ...]


class ArgumentCheck(FrozenModel):
    """Hold all that a check validates. Texts hold the placeholders of tune.manifest.process."""

    commands: tuple[CommandCheck, ...]
    files: tuple[FileCheck, ...]
    packages: tuple[str, ...]


class ArgumentAnswer(FrozenModel):
    """Hold the answer of the software on a node.

    `versions` are those of the installed packages. What was validated is in `accepted`, or in `refused` with
    the software's own words, or in `not_checked` with the reason.
    """

    versions: Mapping[str, str]
    accepted: tuple[str, ...]
    refused: Mapping[str, str]
    not_checked: Mapping[str, str]

    @property
    def software(self) -> str:
        """Return names and versions of the software, for a message."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items()) or "the software"


def read_answer(log: Path) -> ArgumentAnswer | None:
    """Return the answer in the output of a check, None where there is none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    start = text.rfind(_BEGINNING)
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)  # a logger may have added to the line
        return ArgumentAnswer.model_validate(found["argument_check"], strict=False)
    except (ValueError, KeyError):
        return None
