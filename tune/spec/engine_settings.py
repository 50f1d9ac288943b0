"""List the settings that a pool of workers may have: a class for each way to spell an engine's settings.

A new engine is one package in tune/engines, one line in tune/engines/registry.py and, where it has key names
of its own, one line in `SETTINGS_CLASSES` here.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import GetPydanticSchema, ValidationError, ValidationInfo
from pydantic_core import core_schema

from tune.spec.engine import Engine
from tune.spec.trtllm_engine import TrtLlmEngine

SETTINGS_CLASSES: tuple[type[Engine], ...] = (TrtLlmEngine,)
"""The classes in the order in which input is tried against them."""


def _validate_settings(value: Any, info: ValidationInfo) -> Engine:
    """Return `value` as the first class of the table that accepts it.

    Raises the ValidationError of the class that finds the fewest faults.
    """
    errors = []
    for settings in SETTINGS_CLASSES:
        try:
            if info.mode == "json":
                return settings.model_validate_json(json.dumps(value))
            return settings.model_validate(value)
        except ValidationError as error:
            errors.append(error)
    raise min(errors, key=ValidationError.error_count)


EngineSettings = Annotated[
    Engine,
    GetPydanticSchema(
        lambda source, handler: core_schema.with_info_plain_validator_function(_validate_settings)
    ),
]
"""Type of the settings `prefill` and `decode`: code sees an Engine. Input is validated against the classes
that the table holds at that moment, and written with the fields of its own class."""
