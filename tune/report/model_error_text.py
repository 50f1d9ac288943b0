"""Describe the simulator's own error of a rate, and whether a difference of two rates lies above it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune.analysis.model_error_sources import COVERED_SDS
from tune.records.model_error import ModelError
from tune.records.outcome import Outcome
from tune.report import formatting


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


def error_frac(error: ModelError) -> float:
    """Return half of the 90 % interval of a simulated rate, as a share of it."""
    return math.expm1(COVERED_SDS * error.sd_frac)


def simulated_change(before: Outcome, after: Outcome) -> SimulatedChange | None:
    """Return the change of output tokens/s/GPU, None where either was not simulated or not measured."""
    if not (before.model_error and after.model_error):
        return None
    if not (before.output_tps_per_gpu and after.output_tps_per_gpu):
        return None
    sd_frac = before.model_error.difference_sd_frac(after.model_error)
    return SimulatedChange(
        after.output_tps_per_gpu / before.output_tps_per_gpu - 1, math.expm1(COVERED_SDS * sd_frac)
    )


def model_error_sentence(error: ModelError) -> str:
    """Return the model error of a rate and its sources, the largest first, as one sentence."""
    parts = sorted(error.sources, key=lambda source: -source.sd_frac)
    sources = ", ".join(f"{part.name} {_percent(part.sd_frac)}" for part in parts)
    return (
        f"The simulator's own error: a real rack may hold {_percent(error_frac(error))} more or less (90 % "
        f"interval; standard deviations: {sources})."
    )


def change_phrase(change: SimulatedChange) -> str:
    """Return how a change compares with the model error, such as "within the simulator's error of 4 %"."""
    where = "above" if change.exceeds_error else "within"
    return f"{where} the simulator's error of {_percent(change.error_frac)} for this difference"


def _percent(share: float) -> str:
    """Return a share as percent of two digits."""
    return f"{formatting.format_figure(100 * share, 2)} %"
