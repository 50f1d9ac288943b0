"""Choose the options of model, hardware and stack for a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune.errors import ConfigurationError
from tune.recipes.model_sizes import checkpoint_model, public_model
from tune.recipes.options import Choices, option_name
from tune.recipes.recipe import Recipe

_HARDWARE: Mapping[str, str] = {
    "gb200": "gb200_nvl72",
    "gb300": "gb300_nvl72",
    "b200": "b200_dgx",
    "b300": "b300_dgx",
    "h100": "h100_dgx",
    "h200": "h200_dgx",
}
"""Option of the group hardware, by what recipes call a GPU."""

_STACK = "dynamo_v1"


def choose(recipe: Recipe, overrides: Sequence[str]) -> Choices:
    """Return the options for a recipe; `model=`, `hardware=` and `stack=` among `overrides` win.

    Raises ConfigurationError for a GPU without a data sheet and a model without sizes in tune.
    """
    typed = dict(word.partition("=")[::2] for word in overrides)
    hardware = typed.get("hardware") or _HARDWARE.get((recipe.rack.gpu or "gb200").lower())
    if hardware is None:
        raise ConfigurationError(
            f"{recipe.origin}: found the GPU {recipe.rack.gpu}; expected one of {', '.join(_HARDWARE)}, or "
            "hardware=NAME with a file of your own (docs/how-to/your-deployment.md). Nothing was written."
        )
    stack = typed.get("stack", _STACK)
    if "model" in typed:
        return Choices(typed["model"], hardware, stack)
    sizes = _sizes(recipe, typed.get("cluster.model_path"))
    return Choices(option_name(recipe), hardware, stack, sizes, sizes.get("context_tokens"))


def _sizes(recipe: Recipe, model_path: str | None) -> dict[str, Any]:
    """Return the sizes of a recipe's model, those of a checkpoint on this machine first."""
    model = recipe.model
    name = (model.repository or model.path).rstrip("/").rpartition("/")[2].lower()
    sizes = checkpoint_model(Path(model_path or model.path), name, model.served_name)
    sizes = sizes or public_model(model, name)
    if sizes is None:
        raise ConfigurationError(
            f"{recipe.origin}: found the model {model.path}, of which tune knows no sizes; expected "
            "cluster.model_path=FOLDER with its config.json, or model=NAME. Nothing was written."
        )
    return sizes
