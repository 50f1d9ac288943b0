"""What `action=confirm` measures again of a study, and how sure its statement is to be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tune.spec.base import FrozenModel, PositiveInt


class ConfirmSettings(FrozenModel):
    """The best `configurations` of a study, each on `repeats` new deployments; what is said of them holds
    with probability `confidence`."""

    configurations: PositiveInt
    repeats: PositiveInt
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
