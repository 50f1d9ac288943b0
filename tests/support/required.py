"""Skip a test that this machine cannot run, and fail it where the machine has to."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from support.slurm_daemons import SBIN
from support.slurm_rack import NoSlurm


def cannot(reason: str) -> NoReturn:
    """Skip a test that this machine cannot run; fail in CI, where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def cannot_run_slurm(reason: NoSlurm) -> NoReturn:
    """Skip a test that needs Slurm; fail in CI, and as root where Slurm was installed (make slurm)."""
    if os.geteuid() == 0 and shutil.which(f"{SBIN}/slurmctld"):
        pytest.fail(f"Slurm is installed here, and does not run: {reason}")
    cannot(str(reason))
