"""Define the base of every typed setting and record: frozen, strict, without extra fields, without NaN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)

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
