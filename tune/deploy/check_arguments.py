"""Validate engine files and command lines with the software that will read them, and print what it says.

    python3 check_arguments.py

reads argument_check.json beside this file (tune/manifest/argument_check.py) and prints one line of JSON. It
needs the standard library alone; what it imports besides are the parsers and classes that the file names. An
error of theirs about a value is a refusal. What cannot be imported, or fails otherwise, is not checked: that
says nothing about the values.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from importlib import metadata
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


class Refused(Exception):
    """Report that the software refuses a value; the message holds its words."""


class NoneExists(ImportError):
    """Report that the software has nothing of the names that were tried."""


class _Errors(logging.Handler):
    """Keep the text of logged errors: some parsers log why they exit."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of `record`."""
        self.texts.append(record.getMessage())


def first_of(names: Iterable[str]) -> Any:
    """Import the first of `names`, each MODULE:NAME, that exists; raise NoneExists where none does.

    Raises the ImportError of a module that exists and cannot import what it needs.
    """
    missing = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            missing.append(str(error))
        except AttributeError:
            missing.append(f"{module} has no {attribute}")
    raise NoneExists("; ".join(dict.fromkeys(missing)))


def parse_command(check: dict[str, Any]) -> None:
    """Parse a command line as its program does. Raises Refused."""
    parse, said, errors = first_of(check["parsers"]), io.StringIO(), _Errors()
    sys.argv = [check["program"], *check["arguments"]]
    logging.getLogger().addHandler(errors)
    try:
        with redirect_stderr(said):
            parse()
    except SystemExit as stop:
        words = said.getvalue().rpartition("error: ")[2].strip()
        raise Refused("; ".join([words] * bool(words) + errors.texts) or f"exit code {stop.code}") from stop
    except ValueError as error:
        raise Refused(str(error)) from error
    finally:
        logging.getLogger().removeHandler(errors)


def validate_file(check: dict[str, Any]) -> None:
    """Make the engine's arguments from its file as the engine does. Raises Refused."""
    arguments_class = first_of(check["classes"])
    try:
        merge = first_of(check["merge"])
    except NoneExists:
        merge = merge_yaml
    try:
        arguments = merge(dict(check["given"]), str(_FOLDER / check["file"]))
        getattr(arguments_class, "from_kwargs", arguments_class)(**arguments)
    except ValueError as error:  # pydantic's too
        raise Refused(str(error)) from error


def merge_yaml(arguments: dict[str, Any], path: str) -> dict[str, Any]:
    """Return `arguments` with those in the YAML file `path`."""
    content: dict[str, Any] = importlib.import_module("yaml").safe_load(Path(path).read_text())
    return arguments | content


def set_environment(env: dict[str, str], names: set[str]) -> None:
    """Give this process the variables `env`, and none of the other `names`."""
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(env)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_all(check: dict[str, Any]) -> dict[str, Any]:
    """Return what the software says of every command line and file of `check`."""
    result: dict[str, Any] = {"accepted": [], "refused": {}, "not_checked": {}}

    def note(name: str, validate: Callable[[dict[str, Any]], None], part: dict[str, Any]) -> None:
        """Validate `part` and keep the verdict under `name`."""
        try:
            validate(part)
        except Refused as refusal:
            result["refused"][name] = str(refusal)
        except (Exception, SystemExit) as error:  # of foreign software, about anything but a value
            result["not_checked"][name] = f"{type(error).__name__}: {error}"
        else:
            result["accepted"].append(name)

    names = {name for command in check["commands"] for name in command["env"]}
    for command in check["commands"]:
        set_environment(command["env"], names)
        note(command["name"], parse_command, command)
    for file in check["files"]:
        note(file["file"], validate_file, file)
    return {"versions": versions(check["packages"]), **result}


def print_answer() -> None:
    """Print the answer as one line of JSON, and end at once: foreign software may hang when it is left."""
    text = (_FOLDER / "argument_check.json").read_text(encoding="utf-8")
    check = json.loads(text.replace("${PLAN_DIR}", str(_FOLDER)))
    print("\n" + json.dumps({"argument_check": check_all(check)}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    print_answer()
