"""Define the settings of `action=export`."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel


class ExportSettings(FrozenModel):
    """Name the format `to` of an export and the `file` that is written, None for one in the report folder.

    `optuna` is of a whole study, the others are of one trial; with `sbatch` the file is a folder.
    """

    to: Literal["optuna", "sbatch", "srt-slurm", "dgd", "benchmark-report"] | None
    file: str | None
