"""Compare what tune accepts as options and time limits with what the real sbatch accepts."""

from __future__ import annotations

import math
import subprocess

import pytest
from support.slurm_rack import SlurmRack

from tune.spec.slurm_time import time_limit_s

pytestmark = pytest.mark.slow

LIMITS = ("90", "90:30", "4:00:00", "36:00:00", "1-", "2-12", "2-12:30", "1-00:00:05", "0", "0:00")
ENDLESS = ("-1", "INFINITE", "unlimited")
NO_LIMITS = ("soon", "-5:00", "1:2:3:4", "1.5", "5 minutes", "1-2-3", ":30", "1::2")


def test_time_limit_is_read_as_sbatch_reads_it(slurm: SlurmRack) -> None:
    """Slurm counts whole minutes, rounded up, and 0:00 as no limit."""
    for text in (*LIMITS, *ENDLESS):
        job_id = slurm.run("sbatch", "--parsable", "--hold", f"--time={text}", "--wrap", "true").strip()
        shown = slurm.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%l").strip()
        slurm.run("scancel", job_id)
        limit_s, read_s = time_limit_s(text), time_limit_s(shown)
        assert limit_s is not None, text
        assert read_s == (limit_s if math.isinf(limit_s) else math.ceil(limit_s / 60) * 60), text
    for text in NO_LIMITS:
        assert time_limit_s(text) is None
        with pytest.raises(subprocess.CalledProcessError):
            slurm.run("sbatch", "--hold", f"--time={text}", "--wrap", "true")


def test_sbatch_reads_shortened_names_and_no_underscores(slurm: SlurmRack) -> None:
    for option in ("--arra=0-1", "--requ", "--test-onl", "--gpus-per-n=4"):
        slurm.run("sbatch", "--test-only", option, "--wrap", "true")
    for option in ("--test_only", "--job_name=mine", "--t=1"):
        with pytest.raises(subprocess.CalledProcessError):
            slurm.run("sbatch", "--test-only", option, "--wrap", "true")
