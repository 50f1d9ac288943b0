"""Turn the errors of Hydra and pydantic into one message that names the setting and the nearest real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tune.config.renamed_settings import renamed_in_overrides
from tune.spec.environment import SECRET_VALUE

NEAR_NAME_SIMILARITY = 0.78
"""Least similarity of a name that is proposed for an unknown one: 2 x matching / all characters of both.

Chosen here: `modle` leads to `model` (0.8), `bogus` not to `logs` (0.67) and `n_trials` not to
`trial` (0.77).
"""


def explain_hydra(message: str, path: str | None, known_paths: Callable[[], Sequence[str]]) -> str:
    """Return Hydra's error with a better hint: it proposes `+key` for every unknown key.

    `path` is the setting that does not exist, where the error names one. `known_paths` returns the path of
    every setting; it is called only where the nearest one is looked for.
    """
    if "Available options in '" in message:
        return _explain_option(message)
    if "Could not override '" not in message:
        return "\n".join(line for line in message.splitlines() if "multirun" not in line)
    path = path or message.partition("Could not override '")[2].partition("'")[0]
    renamed = renamed_in_overrides([path])
    if renamed:
        return f"{renamed[0]}."
    if path == "sweep":
        return "sweep: a sweep is added, not overridden; expected +sweep=NAME."
    near = _nearest(path, known_paths())
    hint = f"Did you mean {near}?" if near else "python -m tune --cfg job lists every key."
    return f"{path}: no such setting. {hint}"


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is most like `name`; None where none is near."""
    return next(iter(get_close_matches(name, known, n=1, cutoff=NEAR_NAME_SIMILARITY)), None)


def _explain_option(message: str) -> str:
    """Return Hydra's error for an unknown option, with the nearest option first."""
    missing, _, listed = message.partition("Available options in '")
    group, _, option = missing.partition("Could not find '")[2].partition("'")[0].rpartition("/")
    renamed = renamed_in_overrides([f"{group}={option}"])
    if renamed:
        return f"{renamed[0]}."
    options = [line.strip() for line in listed.splitlines()[1:] if line.startswith("\t") and "=" not in line]
    near = _nearest(option, options)
    hint = f" Did you mean {group}={near}?" if near else ""
    return f"{group}={option}: no such option.{hint} There are: {', '.join(options)}."


def explain_validation(error: ValidationError, known_paths: Callable[[], Sequence[str]]) -> str:
    """Return one line for each setting that does not validate; `known_paths` as in `explain_hydra`."""
    lines = ["The configuration does not validate; nothing was run."]
    lines += [f"  {_explain_setting(detail, known_paths)}" for detail in error.errors()]
    return "\n".join(lines)


def _explain_setting(detail: ErrorDetails, known_paths: Callable[[], Sequence[str]]) -> str:
    """Describe the found and the expected value of one setting."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = _nearest(path, known_paths())
        return f"{path}: no such setting." + (f" Did you mean {near}?" if near else "")
    if detail["type"] == "missing":
        return f"{path}: not set; expected a value."
    if detail["type"] == SECRET_VALUE:
        return f"{path}: {detail['msg']}."
    return f"{path}: found {detail['input']!r}; {detail['msg'].replace('Input should be', 'expected')}."


def setting_paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting and group in a plain configuration."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict):
            yield from setting_paths(value, f"{path}.")
