"""Hold the settings of action=confirm: how much of a study is measured again, and the confidence."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tune.spec.base import Count, FrozenModel


class ConfirmSettings(FrozenModel):
    """Measure the best `configurations` of different kinds again, each on `repeats` new deployments.

    One further full run at a guaranteed rate holds with probability `confidence`. With `accuracy` the winner
    is confirmed only if its answers at that rate are accurate.
    """

    configurations: Count
    repeats: Count
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    accuracy: bool = False
