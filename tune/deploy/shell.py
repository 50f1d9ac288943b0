"""Quote the values of a plan for a shell. Only placeholders reach it unquoted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from tune.errors import ConfigurationError
from tune.manifest.process import PLACEHOLDER, Process

_SPLIT = re.compile(f"({PLACEHOLDER.pattern})")


def quote(text: str) -> str:
    """Return `text` as one shell word: quoted throughout, with placeholders that the shell expands."""
    parts = (part for part in _SPLIT.split(text) if part)
    return (
        "".join(f'"{part}"' if PLACEHOLDER.fullmatch(part) else shlex.quote(part) for part in parts) or "''"
    )


def quote_all(texts: Sequence[str]) -> str:
    """Return `texts` as shell words between spaces."""
    return " ".join(quote(text) for text in texts)


def with_env(env: Mapping[str, str], argv: Sequence[str]) -> str:
    """Return a command that sets `env` inside the step, whatever srun or an image has set."""
    prefix = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    return quote_all([*prefix, *argv])


def environment_text(env: Mapping[str, str]) -> str:
    """Return `export` lines for the variables that frontend and workers share."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in env.items())


def commands_text(processes: Sequence[Process]) -> str:
    """Return one process a line: node indices, GPU ids, name, command, between tabs; `-` without GPUs."""
    lines = ["# nodes\tgpus\tname\tcommand\n"]
    for process in processes:
        nodes = ",".join(str(node) for node in process.nodes)
        gpus = ",".join(str(gpu) for node, gpu in process.gpus if node == process.node_index) or "-"
        lines.append(f"{nodes}\t{gpus}\t{process.name}\t{with_env(process.env, process.argv)}\n")
    return "".join(lines)


def reject_unbindable(path: str, value: str) -> None:
    """Raise ConfigurationError where `value` holds a placeholder of the plan or a NUL character."""
    placeholder = PLACEHOLDER.search(value)
    if placeholder or "\0" in value:
        name = placeholder.group() if placeholder else "a NUL character"
        raise ConfigurationError(
            f"{path}: found {value!r}, expected a text without {name}, which "
            f"{'the job fills in itself' if placeholder else 'no command line can hold'}. Change {path}."
        )


def reject_line_break(path: str, value: str) -> None:
    """Raise ConfigurationError where `value` would end its `#SBATCH` line and become a command of the job."""
    if any(character in value for character in "\n\r\0"):
        raise ConfigurationError(
            f"{path}: found {value!r}, expected one line, as an #SBATCH directive is. Change {path}."
        )
