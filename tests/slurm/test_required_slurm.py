"""Test that a Slurm that is missing is an error where it has to be there, and a skip elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.required import cannot_run_slurm
from support.slurm_rack import NoSlurm

Failed, Skipped = pytest.fail.Exception, pytest.skip.Exception


@pytest.mark.parametrize(
    ("in_ci", "user", "installed", "expected"),
    [
        ("true", 1000, False, Failed),
        ("true", 0, True, Failed),
        ("", 0, True, Failed),
        ("", 0, False, Skipped),
        ("", 1000, True, Skipped),
        ("", 1000, False, Skipped),
    ],
)
def test_a_missing_slurm_fails_where_it_has_to_be_there(
    in_ci: str, user: int, installed: bool, expected: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", in_ci)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(shutil, "which", lambda program: program if installed else None)
    with pytest.raises(expected, match="found no sbatch"):
        cannot_run_slurm(NoSlurm("found no sbatch: scripts/install_slurm.sh installs Slurm"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tests/slurm/test_faults.py", "tests/slurm/test_slurm_rack.py"])
def test_tests_of_slurm_fail_in_ci_without_it(name: str, root: Path, tmp_path: Path) -> None:
    options = ("-q", "-x", "-p", "no:cacheprovider", "-m", "not faults", f"--basetemp={tmp_path}/base")
    for program in ("mount", "umount", "rm", "srun", "unshare"):
        (tmp_path / program).symlink_to(shutil.which(program) or "nowhere")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, name],
        cwd=root,
        env=os.environ | {"CI": "true", "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "found no sbatch" in done.stdout or "only root may mount a disk" in done.stdout
