"""Read and write `confirmation.json`: results of the best configurations of a study, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tune.core.files import read_record, write_text
from tune.records.accuracy import Accuracy
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval
from tune.records.study_record import StudyRecord
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

SUFFIX = ".confirm"
"""Suffix of the study that holds the repeats: runs/X.confirm holds those of X."""

_FILE = "confirmation.json"
_ADVICE = "Move the file away and run action=confirm again: no repeat is measured twice."
_LOCATION_KEYS = ("--config-dir=", "cluster", "runs_dir", "reports_dir")


class Repeat(FrozenModel):
    """Hold one new deployment of a configuration.

    `capacity_qps` is None where the deployment gives no estimate, and 0 where no rate is expected to hold.
    `verified_qps` is the highest rate that held in a run of full length.
    """

    trial_id: str
    shuffle_seed: NonNegativeInt
    status: Literal["measured", "infeasible", "failed"]
    reason: str | None
    capacity_qps: NonNegativeFloat | None
    verified_qps: PositiveFloat | None
    gpu_hours: NonNegativeFloat


class MeanCapacity(FrozenModel):
    """Hold the geometric mean of the repeats' capacities and its two-sided interval, in queries/s.

    `low` and `high` are None where no standard deviation is known.
    """

    mean: PositiveFloat
    low: PositiveFloat | None
    high: PositiveFloat | None


class Loss(FrozenModel):
    """Hold by how much a configuration gives fewer output tokens/s/GPU than the best, at mean capacities.

    `low_frac` and `high_frac` are the ends of the two-sided interval; a negative loss is a gain.
    `model_error_frac` is half of the 90 % interval of the simulator's own error of the difference, None on a
    real rack.
    """

    mean_frac: float
    low_frac: float
    high_frac: float
    model_error_frac: NonNegativeFloat | None = None


class PredictedConfiguration(FrozenModel):
    """Hold what the study expected of a configuration that it did not measure, and its first repeat.

    `expected_output_tps_per_gpu` is at the capacity. `outcome` has the id, point and overrides of the
    configuration itself in place of those of the repeat.
    """

    expected_output_tps_per_gpu: Interval
    outcome: Outcome


class ConfirmedConfiguration(FrozenModel):
    """Hold the result of the repeats of one configuration, named by its trial in the study.

    Figures are None where `reason` says why. One further full run at `guaranteed_qps`, on a new deployment
    and in a new shuffle, holds with probability `confidence_frac`; `margin_frac` is how far that rate lies
    below the mean capacity. `shuffle_sd_frac` is the standard deviation, over shuffles, of the rate that one
    run holds. `slo_met_repeats` counts the repeats in which a full run held at the guaranteed rate or
    above. `output_tps_per_gpu` is at the guaranteed rate, with the tokens per answer that the repeats
    measured. `tied` says that the data cannot separate the configuration from the first, and `loss` by how
    much it loses; they are None for the first itself and where nothing can be compared. `model_error_frac` is
    half of the 90 % interval of the simulator's own error, None on a real rack. `overrides` run the
    configuration at the guaranteed rate. A configuration that the study did not measure has no `number`, and
    `predicted` instead.
    """

    trial_id: str
    number: NonNegativeInt | None
    gpus: PositiveInt
    repeats: tuple[Repeat, ...]
    reason: str | None
    capacity_qps: MeanCapacity | None
    guaranteed_qps: PositiveFloat | None
    margin_frac: NonNegativeFloat | None
    next_deployment_qps: PositiveFloat | None = None
    slo_met_repeats: NonNegativeInt
    tokens_per_query: PositiveFloat | None
    output_tps_per_gpu: PositiveFloat | None
    tied: bool | None
    overrides: tuple[str, ...]
    shuffle_sd_frac: NonNegativeFloat | None = None
    loss: Loss | None = None
    model_error_frac: NonNegativeFloat | None = None
    predicted: PredictedConfiguration | None = Field(default=None, exclude_if=lambda each: each is None)

    @property
    def mean_output_tps_per_gpu(self) -> float | None:
        """Return output tokens/s per GPU at the mean capacity, None without one."""
        if self.capacity_qps is None or self.tokens_per_query is None:
            return None
        return self.capacity_qps.mean * self.tokens_per_query / self.gpus

    def withheld(self, reason: str) -> ConfirmedConfiguration:
        """Return this configuration without a guaranteed rate, for `reason`."""
        dropped = {
            "guaranteed_qps": None,
            "margin_frac": None,
            "next_deployment_qps": None,
            "output_tps_per_gpu": None,
            "overrides": (),
        }
        return self.model_copy(update={**dropped, "reason": reason})


class AccuracyCheck(FrozenModel):
    """Hold the trial that measured the accuracy of the winner, in a run at its guaranteed rate.

    `slo_met` says whether the performance run of that deployment held the SLO. `accuracy` is None where the
    trial measured none, and `reason` says why.
    """

    trial_id: str
    target_qps: PositiveFloat
    slo_met: bool
    accuracy: Accuracy | None
    reason: str | None

    @property
    def objection(self) -> str | None:
        """Return why the winner is not confirmed, None where its answers are accurate."""
        if self.accuracy is None:
            return f"its accuracy was not measured: {self.reason}"
        if self.accuracy.missed:
            return f"its answers miss the benchmark's accuracy: {'; '.join(self.accuracy.missed)}"
        return None


class Confirmation(FrozenModel):
    """Hold a confirmation; `configurations` are best first, by output tokens/s/GPU at the mean capacity.

    Configurations without a mean capacity come last. `deployment_sd_frac` is the standard deviation of ln
    capacity between deployments, pooled over the configurations with `degrees_of_freedom`; it is None where
    no configuration has two repeats. GPU-hours are those of all trials of the study and of all repeats on
    record. `guarantee` says of what the rates are lower bounds: of one further full run, or of the mean
    capacity, as records without the field state it. `accuracy` is absent where it was not asked for; where
    it has an objection, the first configuration has no guaranteed rate.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Literal[2] = Field(2, alias="schema")
    study: str
    confidence_frac: Annotated[float, Field(ge=0.5, lt=1)]
    deployment_sd_frac: NonNegativeFloat | None
    degrees_of_freedom: NonNegativeInt
    configurations: tuple[ConfirmedConfiguration, ...]
    study_gpu_hours: NonNegativeFloat
    gpu_hours: NonNegativeFloat
    guarantee: Literal["next_run", "mean_capacity"] = "mean_capacity"
    accuracy: AccuracyCheck | None = Field(default=None, exclude_if=lambda check: check is None)

    def current(self) -> Confirmation:
        """Return this confirmation, without rates where they are bounds of the mean capacity.

        Such a rate held in a full run less often than stated. action=confirm derives the rates anew from the
        repeats on record.
        """
        if self.guarantee == "next_run":
            return self
        reason = "this record states rates of an earlier version; action=confirm derives them anew"
        configurations = tuple(each.withheld(each.reason or reason) for each in self.configurations)
        return self.model_copy(update={"configurations": configurations})


def repeats_root(study: Path) -> Path:
    """Return the folder of the repeats, beside the folder `study`."""
    return study.with_name(study.name + SUFFIX)


def write_confirmation(repeats: Path, record: Confirmation) -> Path:
    """Write confirmation.json into `repeats`, return its path; raise ConfigurationError where that fails."""
    path = repeats / _FILE
    write_text(path, record.model_dump_json(indent=1, by_alias=True) + "\n", durable=True)
    return path


def read_confirmation(study: Path) -> Confirmation | None:
    """Return the confirmation of `study`, None without one; raise ResumableError for a torn file."""
    return read_record(repeats_root(study) / _FILE, Confirmation, _ADVICE)


def confirm_overrides(study: StudyRecord) -> list[str]:
    """Return the overrides that confirm a study, with those of its command that set cluster and folders."""
    location = [word for word in study.command if word.lstrip("+~").startswith(_LOCATION_KEYS)]
    return ["action=confirm", f"study.name={study.name}", *location]
