"""Find the sizes of a recipe's model: those of its checkpoint where that is here, else public ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tune.checkpoint.config_json import CONFIG_FILE, checkpoint_model, model_sizes
from tune.errors import ConfigurationError
from tune.recipes.recipe import ServedModel
from tune.spec.model import WeightDtype

_PUBLIC_MODELS = Path(__file__).with_name("public_models.yaml")
PRECISIONS: Mapping[str, WeightDtype | None] = {
    "fp8": "fp8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "int8": "int8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "fp4": None,
}
"""Number formats of weights, by what recipes call them; fp4 is the one that the model is published in."""

_FORMAT = re.compile(rf"(?<![a-z0-9])({'|'.join(PRECISIONS)})(?![a-z0-9])")
"""Matches a format in the name of a checkpoint, such as Llama-3.3-70B-Instruct-NVFP4, in small letters."""


def model_in_folder(folder: Path, name: str, served_name: str | None) -> dict[str, Any] | None:
    """Return the model of a checkpoint as settings of tune, None where the folder has no config.json.

    Parameters
    ----------
    folder
        The checkpoint.
    name
        Name of the model.
    served_name
        Name in requests; None for the folder's.

    Returns
    -------
    dict[str, Any] | None
        The group `model`.

    Raises
    ------
    ConfigurationError
        For a config.json without sizes.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    try:
        return checkpoint_model(folder / CONFIG_FILE, name, served_name or folder.name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} Nothing was written.") from None


def public_model(model: ServedModel, name: str) -> dict[str, Any] | None:
    """Return a public model as settings of tune, None where public_models.yaml has none of its name."""
    called = [text.rpartition("/")[2].lower() for text in (model.repository, model.path) if text]
    entries = yaml.safe_load(_PUBLIC_MODELS.read_text(encoding="utf-8"))
    for found in called:
        near = [
            (len(start), entry) for entry in entries for start in entry["names"] if found.startswith(start)
        ]
        if near:
            _, entry = max(near, key=lambda pair: pair[0])
            stated = model.precision or _format_in(called) or entry["published"]
            weight_dtype: WeightDtype = PRECISIONS[stated.lower()] or entry["fp4"]
            served_name = model.served_name or model.repository or model.path.rpartition("/")[2]
            attention = entry.get("attention_with_fp4") if weight_dtype == entry["fp4"] else None
            sizes = model_sizes(entry["config"], weight_dtype, attention)
            return {"name": name, "served_name": served_name, **sizes}
    return None


def _format_in(names: Iterable[str]) -> str | None:
    """Return the number format that the name of a checkpoint states, None where it states none."""
    return next((found[0] for name in names if (found := _FORMAT.search(name))), None)
