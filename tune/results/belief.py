"""`belief.json`: what a study that learns the rack believes of it, written anew after every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tune.results.files import read_record, write_text
from tune.spec.typed import NonNegativeFloat, NonNegativeInt, Typed

_FILE = "belief.json"

Probability = Annotated[float, Field(ge=0, le=1)]


class Interval(Typed):
    """A figure that is not known: with 5 % probability it is below `low`, with 5 % above `high`."""

    low: float
    median: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low {self.low}, median {self.median} and high {self.high} are out of order")
        return self


class ParameterBelief(Typed):
    """A figure by which the rack differs from its calibration, as a factor on what that says.

    `before`: of a rack that nothing was measured on; `now`: after all trials told.
    """

    name: str
    before: Interval
    now: Interval


class HypothesisBelief(Typed):
    """Something that is so or not, such as a slow last decode worker: its probability before and now."""

    name: str
    before_frac: Probability
    now_frac: Probability


class TrialBelief(Typed):
    """A measured trial beside what the simulator, as it is believed now, says of its boundary.

    `simulated_qps` is the simulator's own answer over the racks that are believed in, without what was
    learned of its errors; `expected_qps` is what with those is expected of it. `off_sd`: by how many
    standard deviations of what was allowed for (the simulator's error and noise) the measurement lies above
    `simulated_qps`, or below where it is negative.
    """

    trial_id: str
    number: NonNegativeInt
    measured_qps: NonNegativeFloat
    simulated_qps: Interval
    off_sd: float
    expected_qps: NonNegativeFloat | None = None


class Belief(Typed):
    """`expected_gain_frac`: how much another trial is expected to raise the best rate, as a share.

    `calibration`: figures of the most probable rack, by the name of a field of the cluster's calibration;
    what no such field holds (KV cache, all-reduce, a factor a TP) is in `parameters` alone.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    trials_told: NonNegativeInt
    parameters: tuple[ParameterBelief, ...]
    hypotheses: tuple[HypothesisBelief, ...]
    trials: tuple[TrialBelief, ...]
    expected_gain_frac: NonNegativeFloat
    calibration: dict[str, Any]

    @property
    def expected_over_measured(self) -> dict[str, float]:
        """By trial_id, of boundaries."""
        return {
            one.trial_id: one.expected_qps / one.measured_qps
            for one in self.trials
            if one.expected_qps and one.measured_qps
        }


def write_belief(study: Path, belief: Belief) -> None:
    """Raises FixCommand where the study's folder cannot be written."""
    write_text(study / _FILE, belief.model_dump_json(indent=1, by_alias=True) + "\n")


def read_belief(study: Path) -> Belief | None:
    """None for a study whose search learns no rack. Raises RunAgain for a torn file."""
    return read_record(study / _FILE, Belief)
