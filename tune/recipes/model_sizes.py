"""Find the sizes of a recipe's model: those of its checkpoint where that is here, else public ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tune.checkpoint.config_json import CONFIG_FILE, checkpoint_sizes, model_sizes
from tune.errors import ConfigurationError
from tune.recipes.recipe import ServedModel
from tune.spec.model import WeightDtype

_PUBLIC_MODELS = Path(__file__).with_name("public_models.yaml")
_PRECISIONS: Mapping[str, WeightDtype] = {
    "fp8": "fp8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "int8": "int8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
}
"""Number formats of weights, by what recipes call them; fp4 is one of two."""


def checkpoint_model(folder: Path, name: str, served_name: str | None) -> dict[str, Any] | None:
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
        sizes = checkpoint_sizes(folder)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} Nothing was written.") from None
    weights = sum(part.stat().st_size for part in folder.glob("*.safetensors"))
    known = {"checkpoint_bytes": float(weights)} if weights else {}
    return {"name": name, "served_name": served_name or folder.name, **sizes, **known}


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
            precision = (model.precision or "fp8").lower()
            weight_dtype: WeightDtype = entry["fp4"] if precision == "fp4" else _PRECISIONS[precision]
            served_name = model.served_name or model.repository or model.path.rpartition("/")[2]
            return {"name": name, "served_name": served_name, **model_sizes(entry["config"], weight_dtype)}
    return None
