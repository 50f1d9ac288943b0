"""Read and write `posterior.json`: the surrogate's posterior, written anew after every batch of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt
from tune.spec.space import Value

_FILE = "posterior.json"

Probability = Annotated[float, Field(ge=0, le=1)]


class Interval(FrozenModel):
    """Hold a 90 % interval: with 5 % probability the figure is below `low`, with 5 % above `high`."""

    low: float
    median: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        """Raise ValueError where low, median and high are out of order."""
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low {self.low}, median {self.median} and high {self.high} are out of order")
        return self

    def scaled(self, factor: float) -> Interval:
        """Return the interval of the figure times `factor`, which is positive."""
        return Interval(low=self.low * factor, median=self.median * factor, high=self.high * factor)


class ParameterPosterior(FrozenModel):
    """Hold a parameter of the rack as a factor on its value in the calibration.

    `prior` is the interval before any measurement, `posterior` the one after all observed trials.
    """

    name: str
    prior: Interval
    posterior: Interval


class HypothesisPosterior(FrozenModel):
    """Hold the prior and posterior probability of a hypothesis, such as a slow last decode worker."""

    name: str
    prior_frac: Probability
    posterior_frac: Probability


class TrialPosterior(FrozenModel):
    """Hold a measured trial and the simulator's prediction of its capacity under the posterior.

    `simulated_qps` is the simulator's capacity over the posterior samples, without the discrepancy.
    `expected_capacity_qps` is the surrogate's expectation, which includes the discrepancy.
    `standardised_residual` is by how many standard deviations (of simulator error and noise together) the
    measurement lies above `simulated_qps`; it is negative below. `better_frac` is the probability that its
    capacity is higher than that of the measured trial with the highest expected capacity; None for that one,
    and in records of tune 0.1.
    """

    trial_id: str
    number: NonNegativeInt
    measured_qps: NonNegativeFloat
    simulated_qps: Interval
    standardised_residual: float
    expected_capacity_qps: NonNegativeFloat | None = None
    better_frac: Probability | None = None


class KindPosterior(FrozenModel):
    """Hold what the surrogate expects of the best candidate of one kind, such as 14P4D TP4/TP4.

    `trial_id` names that candidate, and `is_measured` says whether it was measured.
    `expected_output_tps_per_gpu` is its output tokens/s per GPU at its capacity. `params` is its point of the
    sweep without the rate; None in records that were written without it.
    """

    kind: str
    trial_id: str
    is_measured: bool
    expected_output_tps_per_gpu: Interval
    params: dict[str, Value] | None = None


class PosteriorSummary(FrozenModel):
    """Hold the surrogate's posterior after `trials_observed` trials.

    `expected_improvement_frac` is by which share another trial is expected to raise the best rate.
    `calibration` holds the most probable parameters by their field names in the cluster's calibration. Those
    without such a field (KV cache, all-reduce, a factor for each TP) are in `parameters` alone. `kinds` lists
    every kind of the candidates, the best first; it is empty in records that were written without it.
    """

    schema_: Literal[2] = Field(2, alias="schema")
    trials_observed: NonNegativeInt
    parameters: tuple[ParameterPosterior, ...]
    hypotheses: tuple[HypothesisPosterior, ...]
    trials: tuple[TrialPosterior, ...]
    kinds: tuple[KindPosterior, ...] = ()
    expected_improvement_frac: NonNegativeFloat
    calibration: dict[str, Any]

    @property
    def expected_over_measured(self) -> dict[str, float]:
        """Return the expected over the measured capacity of each trial, by trial_id."""
        return {
            trial.trial_id: trial.expected_capacity_qps / trial.measured_qps
            for trial in self.trials
            if trial.expected_capacity_qps and trial.measured_qps
        }


def write_posterior(study: Path, summary: PosteriorSummary) -> None:
    """Write posterior.json into the folder `study`; raise ConfigurationError where that fails."""
    write_text(study / _FILE, summary.model_dump_json(indent=1, by_alias=True) + "\n")


def read_posterior(study: Path) -> PosteriorSummary | None:
    """Return the posterior of a study, None without a surrogate; raise ResumableError for a torn file."""
    return read_record(study / _FILE, PosteriorSummary)
