"""Define the base of every typed setting and record: frozen, strict, without extra fields, without NaN."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic_core import PydanticSerializationError

LARGEST_INT = 2**53
"""Largest whole number of a setting: each up to it is a float, too."""

PositiveInt = Annotated[int, Field(gt=0, le=LARGEST_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST_INT)]
MAX_COUNT = 1_000_000
Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]
"""Number of things that are listed one by one, such as nodes or trials."""

PositiveFloat = Annotated[float, Field(gt=0, le=1e18)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class FrozenModel(BaseModel):
    """Hold values that are validated once, on entry; the code inside passes no dicts of settings."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the fields as plain values; a signal that comes meanwhile is raised as it is."""
        with _interrupts_as_raised():
            return super().model_dump(**options)

    def model_dump_json(self, **options: Any) -> str:
        """Return the fields as JSON; a signal that comes meanwhile is raised as a KeyboardInterrupt."""
        with _interrupts_as_raised():
            return super().model_dump_json(**options)


@contextmanager
def _interrupts_as_raised() -> Iterator[None]:
    """Raise the KeyboardInterrupt that pydantic reports as a serializer's error.

    Pydantic's core turns whatever a serializer raises into PydanticSerializationError, an Exception; where it
    writes JSON, the name and text of what was raised are left in the message alone.
    """
    try:
        yield
    except PydanticSerializationError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        if interrupt := re.search(r"\b(?:KeyboardInterrupt|Interrupted): (.*)", str(error)):
            raise KeyboardInterrupt(interrupt[1]) from None
        raise


class SparseModel(FrozenModel):
    """Leave optional fields out of records and canonical forms where they are None."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields that are required or set."""
        record: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: value for name, value in record.items() if value is not None or fields[name].is_required()
        }


SparseModelT = TypeVar("SparseModelT", bound=SparseModel)


def with_optional_fields(
    base: type[SparseModelT], name: str, fields: Iterable[str], kind: Any
) -> type[SparseModelT]:
    """Return the class `name`, a subclass of `base` with further fields that may be None.

    Parameters
    ----------
    base
        The model with the fields that are always present; its module and docstring become those of the class.
    name
        Name of the class, and of the module's attribute that holds it.
    fields
        Names of the further fields; each is None by default and absent from records then.
    kind
        Type of a field that is set.

    Returns
    -------
    type[SparseModelT]
        The new class.
    """
    added: dict[str, Any] = dict.fromkeys(fields, (kind | None, None))
    return create_model(name, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **added)
