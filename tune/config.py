"""Hydra's configuration, composed and validated into Settings. The only module that knows Hydra."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, main
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tune.errors import ConfigurationError
from tune.spec.metrics import LIMITS
from tune.spec.settings import Settings
from tune.spec.space import Sweep
from tune.spec.trial import TrialSpec

_PACKAGE = Path(__file__).parent


def _shipped(name: str) -> Path:
    """`conf` or `sweeps`: beside the package in a checkout, inside it in a wheel."""
    packaged = _PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


@dataclass(frozen=True)
class Composition:
    """What the command line came to. `overrides` are the user's own, as typed, and `config_dirs` the places
    of configurations that they added to the shipped ones."""

    settings: Settings
    study_name: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()


def compose_command_line() -> Composition | None:
    """Compose `sys.argv`; None when Hydra answered itself (`--help`, `--cfg`, shell completion).

    Raises ConfigurationError for anything that does not compose or validate.
    """
    if any(word == "-m" or word.startswith(("--mu", "hydra.mode=")) for word in sys.argv[1:]):
        raise ConfigurationError(
            "--multirun is not how tune sweeps: name a sweep with +sweep=NAME (sweeps/ holds them)."
        )
    captured: list[tuple[DictConfig, dict[str, str], tuple[str, ...], tuple[str, ...]]] = []

    @main(version_base="1.3", config_path=str(_shipped("conf")), config_name="config")
    def capture(config: DictConfig) -> None:
        runtime = HydraConfig.get()
        sources = [found for found in runtime.runtime.config_sources if "command-line" in found.provider]
        own = tuple(f"{source.schema}://{source.path}" for source in sources)
        choices, overrides = dict(runtime.runtime.choices), tuple(runtime.overrides.task)
        captured.append((config, choices, overrides, own))

    _register_nodes()
    with _one_clear_error():
        capture()
    return _composition(*captured[0]) if captured else None


def compose_overrides(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Composition:
    """Compose a list of Hydra overrides, as the command line would. Raises ConfigurationError."""
    _register_nodes()
    where = [f"hydra.searchpath={_grammar(list(config_dirs))}"] if config_dirs else []
    with _one_clear_error(), initialize_config_dir(str(_shipped("conf")), version_base="1.3"):
        config = compose("config", [*overrides, *where], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with_hydra = OmegaConf.to_container(config, resolve=False)
    assert isinstance(with_hydra, dict)
    del with_hydra["hydra"]
    return _composition(OmegaConf.create(with_hydra), choices, tuple(overrides), tuple(config_dirs))


def trial_overrides(spec: TrialSpec, settings: Settings) -> tuple[str, ...]:
    """The Hydra overrides that turn the default configuration into `spec` on the cluster of `settings`."""
    target = spec.model_dump(mode="json") | {
        "cluster": settings.cluster.model_dump(mode="json"),
        "slo": spec.slo.as_settings(),
    }
    default = _defaults()
    return tuple(line for key in target for line in _differences(key, default[key], target[key]))


def shipped_options(group: str) -> tuple[str, ...]:
    """Names of the options of `group` that come with tune."""
    return tuple(sorted(path.stem for path in (_shipped("conf") / group).glob("*.yaml")))


def _composition(
    config: DictConfig,
    choices: Mapping[str, str],
    overrides: tuple[str, ...],
    config_dirs: tuple[str, ...],
) -> Composition:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    sweep_name = choices.get("sweep")
    if "sweep" in plain and sweep_name is None:
        raise ConfigurationError(
            f"sweep: found {plain['sweep']!r}, which names no sweep; expected +sweep=NAME with one of "
            f"{', '.join(sorted(p.stem for p in _shipped('sweeps').glob('*.yaml')))}, or a YAML file "
            "sweep/NAME.yaml under --config-dir."
        )
    load = plain.get("load")
    unsaid = isinstance(load, dict) and load.get("mode", "") is None
    if isinstance(load, dict) and unsaid:
        load["mode"] = "fixed"
    try:
        settings = Settings.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    settings = _with_dataset(settings)
    if unsaid:
        settings = _with_mode(settings)
    if settings.sweep and settings.load.mode == "capacity":
        settings = _with_rate_found(settings, settings.sweep)
    settings = _with_search(settings)
    name = settings.study.name or f"{sweep_name or 'single'}-{choices['cluster']}"
    return Composition(settings, name, overrides, config_dirs)


def _with_mode(settings: Settings) -> Settings:
    """`settings` with the load.mode that is meant where none is said: a deployment that takes long to come up
    is asked for its highest rate, where a sweep asks for more than rates."""
    sweep = settings.sweep
    paths = {dimension.path for dimension in sweep.space.values()} if sweep else set()
    if settings.cluster.kind == "sim" or not paths - {"load.target_qps"}:
        return settings
    load = settings.load.model_copy(update={"mode": "capacity"})
    return settings.model_copy(update={"load": load})


def _with_search(settings: Settings) -> Settings:
    """`settings` with the search that is meant where none is said."""
    learns = settings.load.mode == "capacity" and settings.sweep and not settings.slo.further
    wanted = settings.search.name or ("surrogate" if learns else "tpe")
    return settings.model_copy(update={"search": settings.search.model_copy(update={"name": wanted})})


def _with_rate_found(settings: Settings, sweep: Sweep) -> Settings:
    """`settings` that search for the rate, in what the sweep would vary it in. Raises ConfigurationError where the
    sweep varies nothing else."""
    load = settings.load
    if load.rate_range_qps is None:
        load = load.model_copy(update={"rate_range_qps": sweep.ends("load.target_qps")})
    return settings.model_copy(update={"load": load, "sweep": sweep.without("load.target_qps")})


def _with_dataset(settings: Settings) -> Settings:
    """`settings` with the dataset's file by its absolute path and content. Raises ConfigurationError without it."""
    dataset = settings.load.dataset
    if dataset.path is None:
        return settings
    path = Path(dataset.path).absolute()
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"load.dataset.path: {path} cannot be read ({error.strerror}); expected a CSV with the columns "
            "input_tokens,output_tokens, or the benchmark's pickle (*.pkl)."
        ) from None
    if dataset.sha256 not in (None, found):
        raise ConfigurationError(
            f"load.dataset.sha256: {path} has {found}, expected {dataset.sha256}: the file is not the one "
            "that was measured. Restore it, or leave sha256 out to measure this one."
        )
    pinned = dataset.model_copy(update={"path": str(path), "sha256": found})
    return settings.model_copy(update={"load": settings.load.model_copy(update={"dataset": pinned})})


def _register_nodes() -> None:
    """Register with Hydra the shipped sweeps and, as lifted, every limit that the SLO may hold."""
    limits = {limit.key: None for limit in LIMITS}
    ConfigStore.instance().store(name="slo_limits", node=limits, package="slo", provider="tune")
    for path in _shipped("sweeps").glob("*.yaml"):
        header = path.read_text(encoding="utf-8").splitlines()[0]
        package = header.removeprefix("# @package ") if header.startswith("# @package ") else None
        ConfigStore.instance().store(
            group="sweep", name=path.stem, node=OmegaConf.load(path), package=package, provider="sweeps"
        )


@contextmanager
def _one_clear_error() -> Iterator[None]:
    """Hydra prints and exits on its own unless told to raise; we want one message and our exit code."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(_with_hint(str(error).strip())) from None
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _with_hint(message: str) -> str:
    """Hydra proposes `+key` for every unknown key; a typing error deserves the nearest real one."""
    if "Available options in '" in message:
        return _nearest_option(message)
    if "Could not override '" not in message:
        return "\n".join(line for line in message.splitlines() if "multirun" not in line)
    key = message.partition("Could not override '")[2].partition("'")[0]
    if key == "sweep":
        return "sweep: a sweep is added, not overridden; expected +sweep=NAME."
    near = get_close_matches(key, _known_keys(), n=1)
    hint = f"Did you mean {near[0]}?" if near else "python -m tune --cfg job lists every key."
    return f"{key}: no such setting. {hint}"


def _nearest_option(message: str) -> str:
    """Hydra lists every option and where it searched; say the nearest first."""
    missing, _, listed = message.partition("Available options in '")
    group, _, option = missing.partition("Could not find '")[2].partition("'")[0].rpartition("/")
    options = [line.strip() for line in listed.splitlines()[1:] if line.startswith("\t") and "=" not in line]
    near = get_close_matches(option, options, n=1)
    hint = f" Did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option}: no such option.{hint} There are: {', '.join(options)}."


@cache
def _defaults() -> dict[str, Any]:
    """The configuration without overrides."""
    settings = compose_overrides(()).settings
    return settings.model_dump(mode="json") | {"slo": settings.slo.as_settings()}


def _known_keys() -> list[str]:
    return list(_leaves("", _defaults()))


def _leaves(prefix: str, node: Mapping[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict):
            yield from _leaves(f"{path}.", value)


def _explain(error: ValidationError) -> str:
    lines = ["The configuration does not validate; nothing was run."]
    lines += [f"  {_explain_one(detail)}" for detail in error.errors()]
    return "\n".join(lines)


def _explain_one(detail: ErrorDetails) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(path, _known_keys(), n=1)
        return f"{path}: no such setting." + (f" Did you mean {near[0]}?" if near else "")
    if detail["type"] == "missing":
        return f"{path}: not set; expected a value."
    return f"{path}: found {detail['input']!r}; {detail['msg'].replace('Input should be', 'expected')}."


def _differences(path: str, default: Any, target: Any) -> Iterator[str]:
    if default == target and type(default) is type(target):
        return
    if not (isinstance(default, dict) and isinstance(target, dict)):
        yield f"{path}={_grammar(target)}"
        return
    for key in default.keys() - target.keys():
        yield f"~{path}.{key}"
    for key, value in target.items():
        if key in default:
            yield from _differences(f"{path}.{key}", default[key], value)
        else:
            yield f"+{path}.{key}={_grammar(value)}"


def _grammar(value: Any) -> str:
    """`value` in Hydra's override grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_grammar(item) for item in value) + "]"
    if isinstance(value, str):
        return value if _is_plain_word(value) else _quote(value)
    return json.dumps(value)


def _quote(text: str) -> str:
    """`text` in quotes. A backslash is itself unless it stands before a quote or an interpolation."""
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)\Z", lambda found: found[1] * 2, text) + "'"


def _is_plain_word(text: str) -> bool:
    """Whether Hydra reads `text` back as the same string without quotes."""
    return (
        text.isascii()
        and text.replace("_", "").replace("-", "").isalnum()
        and text[0].isalpha()
        and text.lower() not in {"null", "true", "false", "nan", "inf"}
    )
