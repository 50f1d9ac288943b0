"""Turn the errors of Hydra and pydantic into one message that names the setting and the nearest real one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tune.config.near_names import nearest, nearest_settings
from tune.config.override_errors import explain_several_values, explain_unreadable
from tune.config.renamed_settings import renamed_in_overrides
from tune.config.yaml_errors import line_of_interpolation
from tune.errors import ConfigurationError
from tune.spec.environment import SECRET_VALUE


@dataclass(frozen=True)
class TypedCommand:
    """Hold what was typed, for explanations; `known_paths` returns the path of every setting when called."""

    overrides: Sequence[str]
    config_dirs: Sequence[str]
    known_paths: Callable[[], Sequence[str]]


def explain_hydra(error: Exception, typed: TypedCommand) -> str:
    """Return an error of Hydra or OmegaConf in the words of the command line."""
    message = str(error).strip() or str(error.__cause__ or "")
    override = getattr(error, "override", None)
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", message)
    if override is not None:
        return explain_unreadable(override, message)
    if several:
        return explain_several_values(several[1])
    if "Available options in '" in message:
        return _explain_option(message)
    if "Could not override '" in message:
        path = getattr(error.__cause__, "full_key", None)
        return _explain_unknown(path or message.partition("Could not override '")[2].partition("'")[0], typed)
    if "Config group override must be" in message:
        return explain_option_value(typed.overrides) or message
    return _explain_file(error, message, typed)


def explain_option_value(overrides: Sequence[str]) -> str | None:
    """Return which overrides give a group another value than the name of an option; None where none does."""
    value = r"(null|\d.*|true|false|\$?[\[{].*)"
    groups = [word for word in overrides if re.fullmatch(rf"\+{{0,2}}[\w/@]+={value}", word, re.DOTALL)]
    if not groups:
        return None
    return f"{', '.join(groups)}: expected the name of an option, as in hardware=gb200_nvl72."


def _explain_file(error: Exception, message: str, typed: TypedCommand) -> str:
    """Return an error that comes from the content of a YAML file, or from an interpolation in an override."""
    first = message.partition("\n")[0].replace("KeyError raised while resolving interpolation: ", "")
    path = getattr(error, "full_key", None)
    if path is not None or "no viable alternative" in message:
        where = line_of_interpolation(path, message, typed.config_dirs)
        return f"{path or 'An interpolation'}{where}: {first}; expected ${{PATH}} with the path of a setting."
    missing = re.match(r"In '(.*)': Could not (?:load|find) '(.*)'", message)
    if missing:
        return f"{missing[2]}: no such option; {missing[1]} names it in its list of defaults."
    wrong = re.match(r"In '(.*)': ConfigTypeError", message)
    if wrong:
        return f"{wrong[1]}.yaml: found a list; expected settings, one `key: value` a line."
    return "\n".join(
        line for line in message.splitlines() if "multirun" not in line and "hydra.cc" not in line
    )


def _explain_unknown(path: str, typed: TypedCommand) -> str:
    """Return that a setting does not exist, with its new name or the settings that it may mean."""
    renamed = renamed_in_overrides([path])
    if renamed:
        return f"{renamed[0]}."
    if path == "sweep":
        return "sweep: a sweep is added, not overridden; expected +sweep=NAME."
    known = typed.known_paths()
    if path in known:
        return f"{path}: no such setting. {_other_option(path)} If it was left out, +{path}=VALUE adds it."
    hint = _hint(path, known) or "python -m tune --cfg job lists every key."
    if _is_engine_key(path):
        hint = f"{hint} Another key of the engine's YAML is passed to it by +{path}=VALUE."
    return f"{path}: no such setting. {hint}"


def _is_engine_key(path: str) -> bool:
    """Return whether `path` may be a key of an engine's YAML in a group of a pool, or in its extra."""
    return re.fullmatch(r"(?:prefill|decode|aggregated)\.\w+\..+", path) is not None


def _other_option(path: str) -> str:
    """Return that a setting is one of other options."""
    group = path.partition(".")[0]
    return f"It belongs to another option of {group}; python -m tune --cfg job lists those of this one."


def _hint(path: str, known: Sequence[str]) -> str:
    """Return what may have been meant by an unknown setting; "" where none is near."""
    if path in known:
        return _other_option(path)
    near = nearest_settings(path, known)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def _explain_option(message: str) -> str:
    """Return Hydra's error for an unknown option, with the nearest option first."""
    missing, _, listed = message.partition("Available options in '")
    group, _, option = missing.partition("Could not find '")[2].partition("'")[0].rpartition("/")
    renamed = renamed_in_overrides([f"{group}={option}"])
    if renamed:
        return f"{renamed[0]}."
    options = [line.strip() for line in listed.splitlines()[1:] if line.startswith("\t") and "=" not in line]
    near = nearest(option, options)
    hint = f" Did you mean {group}={near}?" if near else ""
    return (
        f"{group}={option}: no such option.{hint} There are: {', '.join(options)}. One of your own "
        f"is DIR/{group}/{option}.yaml with --config-dir DIR."
    )


@dataclass(frozen=True)
class InvalidSetting:
    """Hold a setting that does not validate: its path, its value, and one line that names both."""

    path: tuple[str | int, ...]
    value: Any
    text: str


class InvalidSettings(ConfigurationError):
    """Report the settings that do not validate, one line each."""

    def __init__(self, settings: Sequence[InvalidSetting]) -> None:
        """Keep the settings beside the message."""
        self.settings = settings
        lines = [f"  {setting.text}" for setting in settings]
        super().__init__("\n".join(["The configuration does not validate; nothing was run.", *lines]))


def invalid_settings(error: ValidationError, known_paths: Callable[[], Sequence[str]]) -> InvalidSettings:
    """Return the error for settings that do not validate; `known_paths` returns all settings."""
    return InvalidSettings(
        [
            InvalidSetting(detail["loc"], detail["input"], _explain_setting(detail, known_paths))
            for detail in error.errors()
        ]
    )


def _explain_setting(detail: ErrorDetails, known_paths: Callable[[], Sequence[str]]) -> str:
    """Describe the found and the expected value of one setting."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{path}: no such setting. {_hint(path, known_paths())}".rstrip()
    if detail["type"] == "value_error":
        found = "" if isinstance(detail["input"], dict) else f"found {detail['input']!r}; "
        return f"{path}: {found}{detail['msg'].removeprefix('Value error, ')}."
    if detail["type"] == "missing":
        return f"{path}: not set; expected a value."
    if detail["type"] == SECRET_VALUE:
        return f"{path}: {detail['msg']}."
    expected = detail["msg"].replace("Input should be", "expected")
    unquoted = detail["type"] == "string_type" and isinstance(detail["input"], int | float)
    return f"{path}: found {detail['input']!r}; {expected}.{' Put it in quotes.' if unquoted else ''}"


def setting_paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting and group in a plain configuration."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict):
            yield from setting_paths(value, f"{path}.")
