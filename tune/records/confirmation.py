"""`confirmation.json`: what the best configurations of a study came to when they were measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tune.core.files import read_record, write_text
from tune.records.study_record import StudyRecord
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

SUFFIX = ".confirm"
"""Of the study that holds the repeats: runs/X.confirm for those of X."""

_FILE = "confirmation.json"
_ADVICE = "Move the file away and run action=confirm again: no repeat is measured twice."
_WHERE = ("cluster", "runs_dir", "reports_dir")


class Repeat(FrozenModel):
    """One new deployment of a configuration. `capacity_qps` is None where it says nothing of the boundary,
    and 0 where no rate is expected to hold; `verified_qps`: the highest that a run of full length held."""

    trial_id: str
    shuffle_seed: NonNegativeInt
    status: Literal["measured", "infeasible", "failed"]
    reason: str | None
    capacity_qps: NonNegativeFloat | None
    verified_qps: PositiveFloat | None
    gpu_hours: NonNegativeFloat


class MeanCapacity(FrozenModel):
    """The geometric mean of the repeats' boundaries and its two-sided interval; without one where no standard
    deviation is known."""

    mean: PositiveFloat
    low: PositiveFloat | None
    high: PositiveFloat | None


class ConfirmedConfiguration(FrozenModel):
    """A configuration, by its trial in the study. Figures are None where `reason` says why.

    `guaranteed_qps`: with probability `confidence_frac` no configuration's mean boundary lies below its own.
    `margin_frac`: how far it lies below the mean. `next_deployment_qps`: as `guaranteed_qps`, of the boundary of
    one more deployment. `slo_held_repeats`: those in which a run of full length held at the stated rate or above.
    `output_tps_per_gpu`: at the stated rate, with the tokens of an answer that the repeats measured.
    `tied`: it cannot be told apart from the first; None for the first itself and where nothing can be told.
    `overrides` run it at the stated rate.
    """

    trial_id: str
    number: NonNegativeInt
    gpus: PositiveInt
    repeats: tuple[Repeat, ...]
    reason: str | None
    capacity_qps: MeanCapacity | None
    guaranteed_qps: PositiveFloat | None
    margin_frac: NonNegativeFloat | None
    next_deployment_qps: PositiveFloat | None
    slo_held_repeats: NonNegativeInt
    tokens_per_query: PositiveFloat | None
    output_tps_per_gpu: PositiveFloat | None
    tied: bool | None
    overrides: tuple[str, ...]


class Confirmation(FrozenModel):
    """`configurations` are best first: by output tokens/s/GPU at the mean boundary, then those without one.

    `deployment_sd_frac`: the standard deviation of ln boundary from deployment to deployment, pooled over the
    configurations on `degrees_of_freedom`; None where no configuration has two. GPU-hours are those of all
    trials of the study and of all repeats on record.
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


def repeats_root(study: Path) -> Path:
    """The folder of the repeats of the study in `study`, beside it."""
    return study.with_name(study.name + SUFFIX)


def write_confirmation(repeats: Path, record: Confirmation) -> Path:
    """Write it into the folder of the repeats; returns its path. Raises ConfigurationError where that cannot be."""
    path = repeats / _FILE
    write_text(path, record.model_dump_json(indent=1, by_alias=True) + "\n")
    return path


def read_confirmation(study: Path) -> Confirmation | None:
    """That of the study in `study`, None where it was not confirmed. Raises ResumableError for a torn file."""
    return read_record(repeats_root(study) / _FILE, Confirmation, _ADVICE)


def confirm_overrides(study: StudyRecord) -> list[str]:
    """The overrides that confirm a study, with what its own command says of its place."""
    where = [word for word in study.command if word.startswith(_WHERE)]
    return ["action=confirm", f"study.name={study.name}", *where]
