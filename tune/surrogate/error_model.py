"""Define how far measurements may lie from the emulated capacities: error of the rack, emulator, noise."""

from __future__ import annotations

from dataclasses import dataclass

AMPLITUDE = 0.1
"""Prior standard deviation of the smooth error in the log capacity of a pool. Chosen here."""

SHORT_LENGTHSCALE_SD = 0.04
"""Standard deviation of a second error in it, which changes from one configuration to the next. Chosen
here."""


@dataclass(frozen=True)
class ErrorModel:
    """Hold the standard deviations of the errors in a log capacity.

    `rack_scale` is a factor on AMPLITUDE and SHORT_LENGTHSCALE_SD. `emulator_sd` is the part of both errors
    that is the emulator's, whatever the rack; `noise_sd` is the noise of a measurement.
    """

    rack_scale: float = 1.0
    emulator_sd: float = 0.015
    noise_sd: float = 0.02

    @property
    def variances(self) -> tuple[float, float]:
        """Return the prior variance of the smooth and of the short error."""
        return (
            (self.rack_scale * AMPLITUDE) ** 2 + self.emulator_sd**2,
            (self.rack_scale * SHORT_LENGTHSCALE_SD) ** 2 + self.emulator_sd**2,
        )
