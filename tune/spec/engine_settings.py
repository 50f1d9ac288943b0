"""Validate the settings of both pools by the class of the engine that the stack names."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import GetPydanticSchema, SerializerFunctionWrapHandler, ValidationInfo, model_serializer
from pydantic_core import core_schema

from tune.spec.base import FrozenModel
from tune.spec.engine import Engine
from tune.spec.engine_table import settings_class
from tune.spec.stack import Stack


def _validate_settings(value: Any, info: ValidationInfo) -> Any:
    """Return `value` as settings of the engine of `stack`; as it is where the stack did not validate."""
    stack: Stack | None = info.data.get("stack")
    if stack is None:
        return value
    settings = settings_class(stack.engine)
    if isinstance(value, dict) and value and not value.keys() & own_fields(settings):
        raise ValueError(
            f"found settings of another engine; expected those of stack.engine={stack.engine} "
            f"({', '.join(own_fields(settings))}). Choose an option of {info.field_name} for this engine, or "
            "another stack"
        )
    if info.mode == "json":
        return settings.model_validate_json(json.dumps(value))
    return settings.model_validate(value)


def own_fields(settings: type[Engine]) -> dict[str, None]:
    """Return the fields of a class of settings that not every engine has, in their order."""
    return dict.fromkeys(name for name in settings.model_fields if name not in Engine.model_fields)


EngineSettings = Annotated[
    Engine,
    GetPydanticSchema(
        lambda source, handler: core_schema.with_info_plain_validator_function(_validate_settings)
    ),
]
"""Type of the settings `prefill` and `decode`: code sees an Engine. Input is validated by the class of the
engine that the field `stack` names, and written with the fields of its own class."""


class WithPools(FrozenModel):
    """Hold a stack and the settings of its two pools.

    Fields are validated in their order, so a subclass has `stack` before `prefill` and `decode`. Records have
    it behind `slo`.
    """

    @model_serializer(mode="wrap")
    def _stack_behind_slo(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields in the order of records."""
        record: dict[str, Any] = handler(self)
        names = [name for name in record if name != "stack"]
        names.insert(names.index("slo") + 1, "stack")
        return {name: record[name] for name in names}
