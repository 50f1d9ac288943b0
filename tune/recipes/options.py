"""Write a recipe as options of the configuration groups: YAML texts by their paths in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tune.engines.registry import file_reader
from tune.recipes.kept_settings import merged_settings
from tune.recipes.recipe import REQUEST_PLANES, ROUTER_MODES, LeftOut, Lengths, Recipe
from tune.recipes.recipe_load import arrival_settings, has_sweep, users_sweep
from tune.spec.split import ROLES

_OPTION_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]+")
_WIDTH = 110


@dataclass(frozen=True)
class Choices:
    """Hold what a recipe leaves to choose: options of the groups model, hardware and stack.

    `written` holds groups that no shipped option describes, by their names; they are written as options of
    the recipe's name. `context_tokens` is the longest sequence of the model, None where nobody stated it.
    """

    model: str
    hardware: str
    stack: str
    written: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context_tokens: int | None = None


def option_name(recipe: Recipe) -> str:
    """Return the name of a recipe's options: its own, with `-` for what Hydra's grammar does not take."""
    return _OPTION_CHARACTERS.sub("-", recipe.name).strip("-")


def recipe_files(recipe: Recipe, choices: Choices) -> dict[str, str]:
    """Return the text of every file by its path; the option that chooses the others comes last."""
    name, reader = option_name(recipe), file_reader(recipe.engine)
    files = {
        f"{role}/{name}.yaml": f"# The {role} engine of {recipe.origin}\n"
        + _yaml(
            {
                **reader.settings_of_keys(role, pool.engine_keys, choices.context_tokens),
                "env": dict(pool.env),
            }
        )
        for role, pool in recipe.pools.items()
    }
    for group, settings in choices.written.items():
        files[f"{group}/{name}.yaml"] = f"# The {group} of {recipe.origin}\n" + _yaml(settings)
    if has_sweep(recipe):
        heading = f"# @package _global_\n# The users of {recipe.origin}\n"
        files[f"sweep/{name}.yaml"] = heading + _yaml(users_sweep(recipe))
    files[f"recipe/{name}.yaml"] = "".join(_recipe_text(recipe, choices))
    return files


def _recipe_text(recipe: Recipe, choices: Choices) -> Iterator[str]:
    name = option_name(recipe)
    yield "# @package _global_\n"
    yield f"# From {recipe.origin}\n"
    if recipe.left_out:
        yield "# Not taken over:\n"
        yield from (f"#   {left_out_text(part)}\n" for part in recipe.left_out)
    if has_sweep(recipe):
        yield f"# The load has the most of its users; +sweep={name} measures each number.\n"
    chosen = {
        "model": choices.model,
        "hardware": choices.hardware,
        **(dict.fromkeys(ROLES) if recipe.is_aggregated else {}),
        **dict.fromkeys(recipe.pools, name),
        "stack": choices.stack,
        **({"load": "fixed"} if recipe.lengths else {}),
        **dict.fromkeys(choices.written, name),
    }
    defaults = [*({f"override /{group}": option} for group, option in chosen.items()), "_self_"]
    over = recipe.kept.over if recipe.kept else {}
    yield _yaml({"defaults": defaults, **merged_settings(_settings(recipe), over)})


def stated_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a trial that a recipe states by itself, without what is kept in its comments."""
    reader = file_reader(recipe.engine)
    pools: dict[str, Any] = {
        role: {**reader.settings_of_keys(role, pool.engine_keys, None), "env": dict(pool.env)}
        for role, pool in recipe.pools.items()
    }
    return {**pools, **_settings(recipe)}


def left_out_text(part: LeftOut) -> str:
    """Return one line on a part that is not taken over: its line, path and value, and why."""
    where = f"line {part.line}: " if part.line else ""
    value = f" ({part.value})" if part.value else ""
    return f"{where}{part.path}{value}: {part.reason}"


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that no chosen option holds."""
    rack, routing = recipe.rack, recipe.routing
    settings: dict[str, Any] = {
        "hardware": {"nodes": rack.nodes, "gpus_per_node": rack.gpus_per_node},
        "split": {
            **(dict.fromkeys((f"{role}_workers" for role in ROLES), 0) if recipe.is_aggregated else {}),
            **{f"{role}_workers": pool.workers for role, pool in recipe.pools.items()},
            "head": rack.head,
            "frontends": routing.frontends,
        },
    }
    load: dict[str, Any] = {"dataset": _dataset(recipe.lengths)} if recipe.lengths else {}
    load |= arrival_settings(recipe.arrivals) if recipe.arrivals else {}
    if load:
        settings["load"] = load
    stack: dict[str, Any] = {"env": dict(routing.env)} if routing.env else {}
    if routing.router_mode in ROUTER_MODES:
        stack["router_mode"] = routing.router_mode
    if routing.request_plane in REQUEST_PLANES:
        stack["request_plane"] = routing.request_plane
    if stack:
        settings["stack"] = stack
    if recipe.model.served_name:
        settings["model"] = {"served_name": recipe.model.served_name}
    if recipe.cluster:
        settings["cluster"] = dict(recipe.cluster)
    return settings


def _dataset(lengths: Lengths) -> dict[str, Any]:
    return {
        "inputs": {
            "tokens": lengths.input_tokens,
            "range_ratio": lengths.lowest_share,
            "range_rule": "inferencex",
        },
        "outputs": {"tokens": lengths.output_tokens},
    }


def _yaml(content: Mapping[str, Any]) -> str:
    """Return YAML text in which nothing is an interpolation."""
    return yaml.safe_dump(
        _literal(content), sort_keys=False, default_flow_style=False, allow_unicode=True, width=_WIDTH
    )


def _literal(value: Any) -> Any:
    """Return `value` with every `${` escaped, which OmegaConf would resolve."""
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
