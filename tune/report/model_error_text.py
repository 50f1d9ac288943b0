"""Describe the simulator's own error of a rate, and whether a difference of two rates lies above it."""

from __future__ import annotations

from dataclasses import dataclass

from tune.analysis.model_error_sources import covered_frac
from tune.records.model_error import ModelError
from tune.records.outcome import Outcome

NEGLIGIBLE_FRAC = 0.0005
"""Model error of a difference below which both figures are said to share all of it."""


@dataclass(frozen=True)
class SimulatedChange:
    """Hold the relative change from one simulated figure to another, and the model error of that change.

    `error_frac` is half of the 90 % interval that the model error alone gives the change.
    """

    change_frac: float
    error_frac: float

    @property
    def exceeds_error(self) -> bool:
        """Return whether the change is larger than the model error."""
        return abs(self.change_frac) > self.error_frac


def simulated_change(before: Outcome, after: Outcome) -> SimulatedChange | None:
    """Return the change of output tokens/s/GPU, None where either was not simulated or not measured."""
    if not (before.model_error and after.model_error):
        return None
    if not (before.output_tps_per_gpu and after.output_tps_per_gpu):
        return None
    sd_frac = before.model_error.difference_sd_frac(after.model_error)
    return SimulatedChange(after.output_tps_per_gpu / before.output_tps_per_gpu - 1, covered_frac(sd_frac))


def model_error_sentence(error: ModelError) -> str:
    """Return the model error of a rate and its sources, the largest first, as one sentence."""
    parts = sorted(error.sources, key=lambda source: -source.sd_frac)
    sources = ", ".join(f"{part.name} {_percent(part.sd_frac)}" for part in parts)
    return (
        "The simulator's own error: a real rack may hold "
        f"{_percent(covered_frac(error.sd_frac))} more or less (90 % interval; standard deviations: "
        f"{sources})."
    )


def change_phrase(change: SimulatedChange) -> str:
    """Return how a change compares with the model error, such as "within the simulator's error of 4 %"."""
    if change.error_frac < NEGLIGIBLE_FRAC:
        return "an error of the simulator is the same in both"
    where = "above" if change.exceeds_error else "within"
    return f"{where} the simulator's error of {_percent(change.error_frac)} for this difference"


def _percent(share: float) -> str:
    """Return a share as percent of two digits."""
    return f"{float(f'{100 * share:.2g}'):g} %"
