"""Define the error of the simulator's own model, as it stands in the record of a simulated trial."""

from __future__ import annotations

import math

from tune.spec.base import FrozenModel, NonNegativeFloat


class ErrorSource(FrozenModel):
    """Hold one reason why a simulated rate may differ from that of the real rack.

    `name` identifies it: two configurations with an equal name are wrong by the same factor. `sd_frac` is the
    standard deviation of ln(rate), and `basis` says where that figure comes from.
    """

    name: str
    sd_frac: NonNegativeFloat
    basis: str


class ModelError(FrozenModel):
    """Hold the reasons why the simulated rate of one configuration may be wrong; they are independent."""

    sources: tuple[ErrorSource, ...]

    @property
    def sd_frac(self) -> float:
        """Return the standard deviation of ln(rate)."""
        return _sum_of_squares(self.sources)

    def difference_sd_frac(self, other: ModelError) -> float:
        """Return the standard deviation of the ratio of two simulated rates, as a logarithm.

        Sources of one name in both make the same error and leave the ratio as it is.
        """
        mine, others = {each.name for each in self.sources}, {each.name for each in other.sources}
        return _sum_of_squares([each for each in self.sources + other.sources if each.name in mine ^ others])


def _sum_of_squares(sources: tuple[ErrorSource, ...] | list[ErrorSource]) -> float:
    """Return the standard deviation of a sum of independent errors."""
    return math.sqrt(math.fsum(source.sd_frac**2 for source in sources))
