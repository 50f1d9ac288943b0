"""Fill the group `model` from the config.json of a checkpoint (`model.config`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune.checkpoint.config_json import CONFIG_FILE, checkpoint_model, unread_quantization
from tune.errors import ConfigurationError

_PREFIX = "model."


def complete_model(model: dict[str, Any], overrides: Sequence[str]) -> None:
    """Replace `config` in `model` by the sizes of the checkpoint that it names; without one, only drop it.

    The file replaces the option of `model` where the command line names it, and fills what an option leaves
    open where that option names it. Settings on the command line win. Raises ConfigurationError for a file
    without sizes, and for weights in a format that it does not name.
    """
    stated = model.pop("config", None)
    if stated is None:
        return
    if not isinstance(stated, str):
        raise ConfigurationError(
            f"model.config: found {stated!r}, expected the path of a checkpoint's config.json."
        )
    path = Path(stated).expanduser().absolute()
    file = path / CONFIG_FILE if path.is_dir() else path
    names = (word.lstrip("+").partition("=")[0] for word in overrides)
    typed = {name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)}
    kept = {key: value for key, value in model.items() if "config" not in typed or key in typed}
    read = checkpoint_model(file, file.parent.name, file.parent.name)
    if "weight_dtype" not in kept and (method := unread_quantization(file)):
        raise ConfigurationError(
            f"model.config: found weights quantised by {method} in {file}, expected a method that names "
            "NVFP4, MXFP4 or FP8. State the number format: model.weight_dtype, and model.checkpoint_bytes."
        )
    model.clear()
    model.update(read | kept)
