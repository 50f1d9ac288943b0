"""Split the words of a command line into overrides, a folder of configuration and Hydra's own flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tune.config.near_names import nearest, nearest_settings
from tune.errors import ConfigurationError
from tune.spec.settings import ACTION_NAMES

_CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
_FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun",
)  # fmt: skip
_COMPLETION_FLAGS = ("--shell-completion", "-sc")
_HELP_OPTIONS = ("hydra/help=tune", "hydra/hydra_help=default")
"""What Hydra's flags print; a command without flags composes faster without it."""

_SPLIT = re.compile(r"(\d+)p(\d+)d", re.IGNORECASE)
_AGGREGATED = re.compile(r"(\d+)a(gg)?", re.IGNORECASE)


@dataclass(frozen=True)
class CommandWords:
    """Hold the parts of a command line.

    Attributes
    ----------
    overrides
        Overrides in Hydra's grammar; an action that was typed as a plain word is `action=NAME`.
    config_dirs
        The folder that --config-dir names, if any.
    flags
        Flags that Hydra answers itself, such as --help, each followed by its value.
    """

    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def for_hydra(self) -> list[str]:
        """Return the words for Hydra's own parser, and the texts that it prints."""
        folders = [word for folder in self.config_dirs for word in ("--config-dir", folder)]
        texts = () if set(self.flags) & set(_COMPLETION_FLAGS) else _HELP_OPTIONS
        return [*self.flags, *folders, *self.overrides, *texts]


@dataclass
class _Parts:
    """Collect the parts of a command line, in the order in which they were typed."""

    flags: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def split_words(
    words: Sequence[str],
    known_paths: Callable[[], Sequence[str]],
    options: Callable[[], Mapping[str, Sequence[str]]],
) -> CommandWords:
    """Return the parts of a command line; a word without `=` is the action.

    Parameters
    ----------
    words
        The command line without the program.
    known_paths
        Returns the path of every setting; called only to explain a word.
    options
        Returns the options of every group, by its name; called only to explain a word.

    Returns
    -------
    CommandWords
        The parts.

    Raises
    ------
    ConfigurationError
        For --multirun, a word that is neither an override nor an action, blanks around `=`, two actions, or
        two folders of configuration.
    """
    if any(word in _COMPLETION_FLAGS for word in words):
        return CommandWords((), (), tuple(words))
    if any(word == "-m" or word.startswith(("--mu", "hydra.mode=")) for word in words):
        raise ConfigurationError(
            "--multirun is not how tune sweeps: name a sweep with +sweep=NAME (sweeps/ holds them)."
        )
    parts = _parts(words)
    _refuse_blanks(parts.others)
    overrides = [_override(word, known_paths, options) for word in parts.others]
    actions = [word for word in overrides if word.startswith("action=")]
    if len(actions) > 1:
        raise ConfigurationError(f"action: found {' and '.join(actions)}; expected one action in a command.")
    if len(parts.config_dirs) > 1:
        raise ConfigurationError(f"--config-dir: found {', '.join(parts.config_dirs)}; expected one folder.")
    return CommandWords(tuple(overrides), tuple(parts.config_dirs), tuple(parts.flags))


def _parts(words: Sequence[str]) -> _Parts:
    """Return flags with their values, the folders of --config-dir, and all other words."""
    parts = _Parts()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in _CONFIG_DIR_FLAGS:
            if not equals and not rest:
                raise ConfigurationError("--config-dir: expected a folder after it.")
            parts.config_dirs.append(value if equals else rest.pop(0))
        elif word in _FLAGS_WITH_VALUE and rest:
            parts.flags += [word, rest.pop(0)]
        elif word.startswith("-"):
            parts.flags.append(word)
        else:
            parts.others.append(word)
    return parts


def _refuse_blanks(words: Sequence[str]) -> None:
    """Raise ConfigurationError with the corrected word where blanks stand around `=`."""
    for position, word in enumerate(words):
        before = words[position - 1] if position else ""
        after = words[position + 1] if position + 1 < len(words) else ""
        if word.startswith("="):
            typed, meant = [before, word], [before, word]
            if word == "=":
                typed, meant = [*typed, after], [*meant, after]
        elif word.endswith("=") and after and "=" not in after and after not in ACTION_NAMES:
            typed, meant = [word, after], [word, after]
        else:
            continue
        raise ConfigurationError(
            f"{' '.join(typed).strip()}: found a blank beside =; expected {shlex.quote(''.join(meant))}."
        )


def _override(
    word: str,
    known_paths: Callable[[], Sequence[str]],
    options: Callable[[], Mapping[str, Sequence[str]]],
) -> str:
    """Return a word as an override. Raises ConfigurationError where it is neither override nor action."""
    if "=" in word or word.startswith("~"):
        return word
    if word in ACTION_NAMES:
        return f"action={word}"
    raise ConfigurationError(
        f"{word}: found a word without =; expected an action or path=value."
        f"{_hint(word, known_paths, options)} Actions: {', '.join(ACTION_NAMES)}."
    )


def _hint(
    word: str,
    known_paths: Callable[[], Sequence[str]],
    options: Callable[[], Mapping[str, Sequence[str]]],
) -> str:
    """Return what a word that is no override may have meant; empty where nothing is near."""
    split, aggregated = _SPLIT.fullmatch(word), _AGGREGATED.fullmatch(word)
    action = nearest(word, ACTION_NAMES)
    groups = [group for group, names in options().items() if word in names]
    if groups:
        meant = f"{'+' if groups[0] == 'sweep' else ''}{groups[0]}={word}"
    elif split:
        meant = f"split.prefill_workers={split[1]} split.decode_workers={split[2]}"
    elif aggregated:
        meant = f"split=aggregated split.aggregated_workers={aggregated[1]}"
    elif action:
        meant = action
    else:
        settings = nearest_settings(word.lstrip("+"), known_paths())
        meant = " or ".join(f"{path}=VALUE" for path in settings)
    return f" Did you mean {meant}?" if meant else ""
