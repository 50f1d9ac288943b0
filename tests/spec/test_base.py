"""Test what every typed setting and record does, whatever its fields."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticSerializationError

from tune.orchestrator.supervision.signals import Interrupted
from tune.spec.base import FrozenModel


class Inner(FrozenModel):
    error: Any

    @model_serializer(mode="wrap")
    def raise_error(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        raise self.error


class Outer(FrozenModel):
    inner: Inner


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15)])
def test_a_signal_within_a_serializer_stays_one(error: KeyboardInterrupt) -> None:
    record = Outer.model_construct(inner=Inner.model_construct(error=error))
    with pytest.raises(type(error)) as plain:
        record.model_dump(mode="json")
    assert plain.value is error
    with pytest.raises(KeyboardInterrupt) as json:
        record.model_dump_json()
    assert str(json.value) == str(error)


def test_another_error_of_a_serializer_is_not_a_signal() -> None:
    record = Outer.model_construct(inner=Inner.model_construct(error=ValueError("KeyboardInterrupt")))
    with pytest.raises(PydanticSerializationError):
        record.model_dump()
    with pytest.raises(PydanticSerializationError):
        record.model_dump_json()
