"""Compose Hydra's configuration and validate it into Settings. No other module knows Hydra."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir, main
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from tune.config.command_words import CommandWords, split_words
from tune.config.completion import complete_settings
from tune.config.explanations import (
    TypedCommand,
    explain_hydra,
    explain_option_value,
    invalid_settings,
    setting_paths,
)
from tune.config.known_settings import class_paths
from tune.config.model_file import complete_model
from tune.config.neutral_names import name_engine_settings
from tune.config.renamed_settings import renamed_in_overrides, renamed_in_tree
from tune.config.workload_completion import complete_rate, complete_workload
from tune.config.yaml_errors import explain_encoding, refuse_base_60, refuse_repeating_aliases
from tune.core.override_grammar import JSON_RESOLVER, json_mapping, override_differences, override_value
from tune.core.unreadable_yaml import explain_yaml
from tune.errors import ConfigurationError
from tune.spec.load import recommended_qps
from tune.spec.metrics import LIMITS
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class ComposedConfig:
    """Hold the settings that a command line composes.

    Attributes
    ----------
    settings
        The validated configuration, without open choices.
    study_name
        Name of the study's folder.
    overrides
        Hydra overrides as the user typed them.
    config_dirs
        Folders that the user added to the shipped configuration.
    """

    settings: Settings
    study_name: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of a command line that composes the same configuration."""
        return (*(f"--config-dir={folder}" for folder in self.config_dirs), *self.overrides)


def compose_command_line() -> ComposedConfig | None:
    """Compose `sys.argv`; return None when Hydra answered itself (`--help`, `--cfg`, shell completion).

    Raises ConfigurationError for anything that does not compose or validate.
    """
    command = split_words(sys.argv[1:], _known_paths, _options)
    if command.flags:
        return _compose_by_hydra(command)
    return compose_overrides(command.overrides, command.config_dirs)


def _compose_by_hydra(command: CommandWords) -> ComposedConfig | None:
    """Let Hydra answer its own flags; return a composition where it runs the program, as with --run."""
    _refuse_renamed(renamed_in_overrides(command.overrides))
    captured: list[tuple[DictConfig, dict[str, str]]] = []

    @main(version_base="1.3", config_path=str(_shipped("conf")), config_name="config")
    def capture(config: DictConfig) -> None:
        """Keep Hydra's composed configuration."""
        captured.append((config, dict(HydraConfig.get().runtime.choices)))

    _register_nodes()
    sys.argv[1:] = command.for_hydra
    with _clear_errors(command.overrides, command.config_dirs):
        _register_sweeps()
        capture()
        if captured:
            return _composition(*captured[0], command.overrides, command.config_dirs)
    return None


def compose_overrides(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> ComposedConfig:
    """Compose a list of Hydra overrides, as the command line would.

    `config_dirs` are added to the search path. Raises ConfigurationError for anything that does not compose
    or validate.
    """
    _refuse_renamed(renamed_in_overrides(overrides))
    _refuse_missing(config_dirs)
    refuse_repeating_aliases(config_dirs)
    refuse_base_60(config_dirs)
    _register_nodes()
    folders = [str(Path(folder).absolute()) for folder in config_dirs]
    search_path = [f"hydra.searchpath={override_value(folders)}"] if folders else []
    with _clear_errors(overrides, config_dirs):
        if config_dirs or any("sweep" in word for word in overrides):
            _register_sweeps()
        with initialize_config_dir(str(_shipped("conf")), version_base="1.3"):
            config = compose("config", [*overrides, *search_path], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        return _composition(config, choices, tuple(overrides), tuple(config_dirs))


def trial_overrides(spec: TrialSpec, settings: Settings) -> tuple[str, ...]:
    """Return the overrides that turn the default configuration into `spec` on the cluster of `settings`.

    Those of an aggregated deployment begin with the option split=aggregated.
    """
    target = spec.model_dump(mode="json") | {
        "cluster": settings.cluster.model_dump(mode="json"),
        "slo": spec.slo.as_settings(),
        "split": dict(spec.split),
    }
    option = ("split=aggregated",) if spec.split.aggregated_workers else ()
    default = dict(_composed_values(option))
    default["load"] = {**default["load"], "target_qps": recommended_qps(spec.hardware.gpus)}
    target["load"] = {"concurrency": None, **target["load"]}
    differences = (line for key in target for line in override_differences(key, default[key], target[key]))
    return (*option, *differences)


def shipped_options(group: str) -> tuple[str, ...]:
    """Return the names of the options of a configuration group that come with tune."""
    return tuple(sorted(path.stem for path in (_shipped("conf") / group).glob("*.yaml")))


def shipped_option(group: str, name: str) -> Mapping[str, Any]:
    """Return what the file of one option of a configuration group says that comes with tune."""
    text = (_shipped("conf") / group / f"{name}.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = yaml.safe_load(text)
    return content


def _shipped(name: str) -> Path:
    """Return the folder `conf` or `sweeps`: beside the package in a checkout, inside it in a wheel."""
    packaged = _PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def _composition(
    config: DictConfig,
    choices: Mapping[str, str],
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
) -> ComposedConfig:
    """Validate a composed configuration and fill in its open choices."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    _refuse_renamed(renamed_in_tree({str(key): value for key, value in plain.items()}))
    sweep_name = choices.get("sweep")
    if "sweep" in plain and sweep_name is None:
        raise ConfigurationError(
            f"sweep: found {plain['sweep']!r}, which names no sweep; expected +sweep=NAME with one of "
            f"{', '.join(sorted(p.stem for p in _shipped('sweeps').glob('*.yaml')))}, or a YAML file "
            "sweep/NAME.yaml under --config-dir."
        )
    load = plain.get("load")
    mode_is_open = isinstance(load, dict) and load.get("mode", "") is None
    if isinstance(load, dict) and mode_is_open:
        load["mode"] = "fixed"
    if isinstance(load, dict):
        complete_workload(load)
        complete_rate(load, plain.get("hardware"))
    if isinstance(model := plain.get("model"), dict):
        complete_model(model, overrides)
    name_engine_settings(plain.get("sweep"), plain.get("stack"))
    try:
        settings = Settings.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise invalid_settings(error, _known_paths) from None
    settings = complete_settings(settings, mode_is_open=mode_is_open)
    if not overrides and not config_dirs:
        _DEFAULTS.append(settings)
    single = "users" if settings.load.is_closed_loop else "single"
    name = settings.study.name or f"{sweep_name or single}-{choices['cluster']}"
    return ComposedConfig(settings, name, overrides, config_dirs)


def _refuse_missing(config_dirs: Sequence[str]) -> None:
    """Raise ConfigurationError where a folder of configuration does not exist."""
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigurationError(
                f"--config-dir: {folder} is no folder; expected one with GROUP/OPTION.yaml."
            )


def _refuse_renamed(renamed: Sequence[str]) -> None:
    """Raise ConfigurationError with the new names if any setting has an old name."""
    if renamed:
        raise ConfigurationError("\n".join([*renamed, "Nothing was run; use the new names."]))


@cache
def _register_nodes() -> None:
    """Register limits of the SLO and checkpoint of the model, as unset, and the resolver `${json:TEXT}`."""
    OmegaConf.register_new_resolver(JSON_RESOLVER, json_mapping, replace=True)
    limits = {limit.key: None for limit in LIMITS}
    ConfigStore.instance().store(name="slo_limits", node=limits, package="slo", provider="tune")
    ConfigStore.instance().store(name="model_config", node={"config": None}, package="model", provider="tune")


@cache
def _register_sweeps() -> None:
    """Register the shipped sweeps with Hydra; reading them takes time, which few commands need."""
    for path in _shipped("sweeps").glob("*.yaml"):
        header = path.read_text(encoding="utf-8").splitlines()[0]
        package = header.removeprefix("# @package ") if header.startswith("# @package ") else None
        ConfigStore.instance().store(
            group="sweep", name=path.stem, node=OmegaConf.load(path), package=package, provider="sweeps"
        )


@contextmanager
def _clear_errors(overrides: Sequence[str], config_dirs: Sequence[str]) -> Iterator[None]:
    """Raise ConfigurationError with one message, where Hydra by itself would print several and exit."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigurationError(explain_yaml(error)) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(explain_encoding(error, config_dirs)) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        typed = TypedCommand(overrides, config_dirs, _known_paths)
        raise ConfigurationError(explain_hydra(error, typed)) from None
    except (TypeError, AssertionError):  # Hydra's answer to a list or mapping as the option of a group
        no_option = explain_option_value(overrides)
        if no_option is None:
            raise
        raise ConfigurationError(no_option) from None
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


_DEFAULTS: list[Settings] = []
"""The configuration without overrides; empty until it is first composed."""


def shipped_settings() -> Settings:
    """Return the configuration without overrides, composed once in a process."""
    if not _DEFAULTS:
        compose_overrides(())
    return _DEFAULTS[0]


@cache
def _composed_values(option: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Return the configuration without overrides, or with one `option` alone, as plain values."""
    settings = compose_overrides(option).settings if option else shipped_settings()
    plain = settings.model_dump(mode="json")
    load = {"concurrency": None, **plain["load"]}
    return plain | {"slo": settings.slo.as_settings(), "split": dict(settings.split), "load": load}


def _known_paths() -> list[str]:
    """Return the path of every setting, those of the configuration as shipped first."""
    aggregated = _composed_values(("split=aggregated",))["aggregated"]
    shipped = setting_paths({**_composed_values(), "aggregated": aggregated})
    return list(dict.fromkeys([*shipped, *class_paths()]))


def _options() -> dict[str, list[str]]:
    """Return the shipped options of every group, and the sweeps."""
    folders = [path for path in _shipped("conf").iterdir() if path.is_dir()]
    groups = {folder.name: [path.stem for path in folder.glob("*.yaml")] for folder in folders}
    return groups | {"sweep": [path.stem for path in _shipped("sweeps").glob("*.yaml")]}
