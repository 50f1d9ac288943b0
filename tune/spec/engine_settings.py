"""Validate the settings of every pool by the class of the engine that the stack names."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    Field,
    GetPydanticSchema,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
)
from pydantic_core import PydanticCustomError, core_schema

from tune.spec.base import FrozenModel
from tune.spec.engine import Engine
from tune.spec.engine_table import settings_class
from tune.spec.split import ROLES
from tune.spec.stack import Stack


def _validate_settings(value: Any, info: ValidationInfo) -> Any:
    """Return `value` as settings of the engine of `stack`; as it is where the stack did not validate.

    Without a value they are those of aggregated workers, which prefill and decode.
    """
    if value is None:
        own = info.data.get("aggregated")
        if own is None and "aggregated" in info.data:
            raise PydanticCustomError("missing", "Field required")
        return own
    stack: Stack | None = info.data.get("stack")
    if stack is None:
        return value
    settings = settings_class(stack.engine)
    if isinstance(value, dict) and _is_of_another(value, settings):
        raise ValueError(
            f"found settings of another engine; expected those of stack.engine={stack.engine} "
            f"({', '.join(own_fields(settings))}). Choose an option of {info.field_name} for this engine, or "
            "another stack"
        )
    if info.mode == "json":
        return settings.model_validate_json(json.dumps(value))
    return settings.model_validate(value)


def _is_of_another(value: Mapping[str, Any], settings: type[Engine]) -> bool:
    """Return whether more of the keys are unknown to the engine than are its own: engines share some."""
    return len(value.keys() - settings.model_fields.keys()) > len(value.keys() & own_fields(settings))


def own_fields(settings: type[Engine]) -> dict[str, None]:
    """Return the fields of a class of settings that not every engine has, in their order."""
    return dict.fromkeys(name for name in settings.model_fields if name not in Engine.model_fields)


_SETTINGS = GetPydanticSchema(
    lambda source, handler: core_schema.with_info_plain_validator_function(_validate_settings)
)

EngineSettings = Annotated[Engine, _SETTINGS, Field(default=None, validate_default=True)]
"""Type of the settings `prefill` and `decode`: code sees an Engine. Input is validated by the class of the
engine that the field `stack` names, and written with the fields of its own class."""

AggregatedSettings = Annotated[
    Engine | None, _SETTINGS, Field(default=None, exclude_if=lambda settings: settings is None)
]
"""Type of the settings `aggregated`, absent from records where there are none."""


def with_both_pools(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain settings with those of `aggregated`, if any, where those of another pool are absent."""
    return {role: copy.deepcopy(values["aggregated"]) for role in ROLES} | dict(values)


class WithPools(FrozenModel):
    """Hold a stack and the settings of the pools.

    Aggregated workers are those that prefill and those that decode: where `prefill` or `decode` is left out,
    it is `aggregated`, and records leave both out where they are. Fields are validated in their order, so a
    subclass has `stack`, then `aggregated`, before the others. Records have `stack` behind `slo`.
    """

    @model_serializer(mode="wrap")
    def _stack_behind_slo(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields in the order of records."""
        record: dict[str, Any] = handler(self)
        is_one = record["prefill"] == record["decode"] == record.get("aggregated")
        names = [name for name in record if name not in ("stack", *(ROLES if is_one else ()))]
        names.insert(names.index("slo") + 1, "stack")
        return {name: record[name] for name in names}
