"""`posterior.json`: what a study that learns the rack believes of it, written anew after every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt

_FILE = "posterior.json"

Probability = Annotated[float, Field(ge=0, le=1)]


class Interval(FrozenModel):
    """A figure that is not known: with 5 % probability it is below `low`, with 5 % above `high`."""

    low: float
    median: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low {self.low}, median {self.median} and high {self.high} are out of order")
        return self


class ParameterPosterior(FrozenModel):
    """A figure by which the rack differs from its calibration, as a factor on what that says.

    `prior`: of a rack that nothing was measured on; `posterior`: after all trials told.
    """

    name: str
    prior: Interval
    posterior: Interval


class HypothesisPosterior(FrozenModel):
    """Something that is so or not, such as a slow last decode worker: its probability before and now."""

    name: str
    prior_frac: Probability
    posterior_frac: Probability


class TrialPosterior(FrozenModel):
    """A measured trial beside what the simulator, as it is believed now, says of its boundary.

    `simulated_qps` is the simulator's own answer over the racks that are believed in, without what was
    learned of its errors; `expected_capacity_qps` is what with those is expected of it.
    `standardised_residual`: by how many
    standard deviations of what was allowed for (the simulator's error and noise) the measurement lies above
    `simulated_qps`, or below where it is negative.
    """

    trial_id: str
    number: NonNegativeInt
    measured_qps: NonNegativeFloat
    simulated_qps: Interval
    standardised_residual: float
    expected_capacity_qps: NonNegativeFloat | None = None


class PosteriorSummary(FrozenModel):
    """`expected_improvement_frac`: how much another trial is expected to raise the best rate, as a share.

    `calibration`: figures of the most probable rack, by the name of a field of the cluster's calibration;
    what no such field holds (KV cache, all-reduce, a factor a TP) is in `parameters` alone.
    """

    schema_: Literal[2] = Field(2, alias="schema")
    trials_observed: NonNegativeInt
    parameters: tuple[ParameterPosterior, ...]
    hypotheses: tuple[HypothesisPosterior, ...]
    trials: tuple[TrialPosterior, ...]
    expected_improvement_frac: NonNegativeFloat
    calibration: dict[str, Any]

    @property
    def expected_over_measured(self) -> dict[str, float]:
        """By trial_id, of boundaries."""
        return {
            one.trial_id: one.expected_capacity_qps / one.measured_qps
            for one in self.trials
            if one.expected_capacity_qps and one.measured_qps
        }


def write_posterior(study: Path, belief: PosteriorSummary) -> None:
    """Raises ConfigurationError where the study's folder cannot be written."""
    write_text(study / _FILE, belief.model_dump_json(indent=1, by_alias=True) + "\n")


def read_posterior(study: Path) -> PosteriorSummary | None:
    """None for a study whose search learns no rack. Raises ResumableError for a torn file."""
    return read_record(study / _FILE, PosteriorSummary)
