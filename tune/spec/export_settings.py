"""Define the settings of `action=export`."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel


class ExportSettings(FrozenModel):
    """Name the format `to` of an export and the `file` that is written, None for one in the report folder.

    `optuna` is of a whole study, the others are of one trial; with `sbatch` and `mlperf` the file is a
    folder, and `submitter` names a YAML file with what only the submitter to MLPerf knows.
    """

    to: Literal["optuna", "sbatch", "srt-slurm", "dgd", "benchmark-report", "mlperf"] | None
    file: str | None
    submitter: str | None = None
