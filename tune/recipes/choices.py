"""Choose the options of model, hardware and stack for a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune.engines.registry import file_reader
from tune.errors import ConfigurationError
from tune.recipes.model_sizes import model_in_folder, public_model
from tune.recipes.options import Choices, option_name
from tune.recipes.recipe import LeftOut, Lengths, Recipe
from tune.recipes.stated_lines import value_at
from tune.spec.dataset import Dataset
from tune.spec.engine_table import ENGINES
from tune.spec.split import READS_PROMPTS
from tune.spec.stack import GENERATIONS

_HARDWARE: Mapping[str, str] = {
    "gb200": "gb200_nvl72",
    "gb300": "gb300_nvl72",
    "b200": "b200_dgx",
    "b300": "b300_dgx",
    "h100": "h100_dgx",
    "h200": "h200_dgx",
}
"""Option of the group hardware, by what recipes call a GPU."""

_STACKS: Mapping[str, str] = {"flat": "dynamo_v0", "nested_1_0": "dynamo_v04"}
"""Option of the group stack, by the generation of the engine's YAML where that decides."""

_UNSTATED_TOKENS = 1024
"""Tokens of a prompt, and of an answer, where a recipe states no lengths. Chosen here."""


def choose(recipe: Recipe, overrides: Sequence[str]) -> Choices:
    """Return the options for a recipe; `model=`, `hardware=` and `stack=` among `overrides` win.

    Raises ConfigurationError for a GPU without a data sheet and a model without sizes in tune.
    """
    typed = dict(word.partition("=")[::2] for word in overrides)
    gpu = recipe.rack.gpu or "gb200"
    hardware = typed.get("hardware") or _HARDWARE.get(gpu.lower())
    if hardware is None and "hardware" not in _kept_groups(recipe):
        raise ConfigurationError(
            f"{value_at(recipe, gpu)}: found the GPU {gpu}; expected one of {', '.join(_HARDWARE)}, or "
            "hardware=NAME with a file of your own (docs/how-to/your-deployment.md). Nothing was written."
        )
    stack, hardware = typed.get("stack") or _stack(recipe), hardware or ""
    kept = {name: group for name, group in _kept_groups(recipe).items() if name not in typed}
    if "model" in typed or "model" in kept:
        context_tokens = kept.get("model", {}).get("context_tokens")
        return Choices(typed.get("model", ""), hardware, stack, kept, context_tokens)
    sizes = _sizes(recipe, typed.get("cluster.model_path"))
    return Choices(
        option_name(recipe), hardware, stack, {**kept, "model": sizes}, sizes.get("context_tokens")
    )


def _kept_groups(recipe: Recipe) -> dict[str, Mapping[str, Any]]:
    return dict(recipe.kept.groups.items()) if recipe.kept else {}


def pool_words(recipe: Recipe) -> tuple[str, ...]:
    """Return the overrides that choose pools like those of a recipe; none where the shipped ones are."""
    split = ("split=aggregated",) if recipe.is_aggregated else ()
    options = ENGINES[recipe.engine].recipe_options
    return (*split, *(f"{role}={options[1]}" for role in recipe.pools)) if options else split


def with_lengths(recipe: Recipe, default: Dataset) -> Recipe:
    """Return a recipe with lengths that its engines take, where it states none and `default` is too long."""
    (reading,) = (pool for role, pool in recipe.pools.items() if role in READS_PROMPTS)
    longest_tokens = file_reader(recipe.engine).longest_prompt_of_keys(reading.engine_keys)
    if recipe.lengths or "load" in _kept_groups(recipe) or longest_tokens >= default.longest_prompt_tokens:
        return recipe
    tokens = min(_UNSTATED_TOKENS, int(longest_tokens) // 2)
    reason = f"the recipe states none: {tokens} tokens each, unless load= says otherwise"
    left_out = (*recipe.left_out, LeftOut("lengths of prompts and answers", "", 0, reason))
    return replace(recipe, lengths=Lengths(tokens, tokens), left_out=left_out)


def _stack(recipe: Recipe) -> str:
    """Return the stack that writes the engine's YAML as the recipe has it, of the Dynamo that it states."""
    kept = _kept_groups(recipe).get("stack", {}).get("name", "")
    if options := ENGINES[recipe.engine].recipe_options:
        return options[0]
    reader = file_reader(recipe.engine)
    if kept:
        return next(stack for stack in GENERATIONS if kept == stack or kept.startswith(f"{stack}_"))
    generations = {reader.generation_of_keys(pool.engine_keys) for pool in recipe.pools.values()}
    decisive = [stack for generation, stack in _STACKS.items() if generation in generations]
    before_1 = recipe.dynamo is not None and recipe.dynamo.startswith("0.")
    return decisive[0] if decisive else "dynamo_v07" if before_1 else "dynamo_v1"


def _sizes(recipe: Recipe, model_path: str | None) -> dict[str, Any]:
    """Return the sizes of a recipe's model, those of a checkpoint on this machine first."""
    model = recipe.model
    name = (model.repository or model.path).rstrip("/").rpartition("/")[2].lower()
    folder = model_path or model.path
    sizes = model_in_folder(Path(folder), name, model.served_name) if folder else None
    sizes = sizes or public_model(model, name)
    if sizes is None:
        path = model.path or "(none)"
        raise ConfigurationError(
            f"{value_at(recipe, path)}: found the model {path}, of which tune knows no sizes; expected "
            "cluster.model_path=FOLDER with its config.json, or model=NAME. Nothing was written."
        )
    return sizes
