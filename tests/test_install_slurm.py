"""Test scripts/install_slurm.sh where Slurm is installed, and where it cannot be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "munged", "slurmdbd", "mariadbd")


def install(root: Path, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing on the PATH but the programs in `path`."""
    clean = {key: value for key, value in os.environ.items() if key != "CI"}
    text = (root / "scripts" / "install_slurm.sh").read_text()
    system = "PATH=$PATH:/usr/sbin:/sbin\n"
    assert system in text
    here = path.parent / "install_slurm.sh"
    here.write_text(text.replace(system, ""))
    bash = shutil.which("bash")
    assert bash
    return subprocess.run(
        [bash, here], env=clean | {"PATH": str(path)} | env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "path").mkdir()
    return tmp_path / "path"


def test_where_all_is_there_it_does_nothing(root: Path, path: Path) -> None:
    for program in PROGRAMS:
        (path / program).touch(mode=0o755)
    done = install(root, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_library_without_program_is_missed_too(root: Path, path: Path) -> None:
    for program in (*PROGRAMS, "dpkg-query"):
        (path / program).write_text("#!/bin/sh\n")
        (path / program).chmod(0o755)
    assert "skipped: no libpmix-dev, and no apt-get" in install(root, path).stderr


@pytest.mark.parametrize(("env", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_what_cannot_be_had_is_named_and_fails_in_ci(
    env: dict[str, str], status: int, root: Path, path: Path
) -> None:
    for program in PROGRAMS[1:]:
        (path / program).touch(mode=0o755)
    done = install(root, path, **env)
    assert done.returncode == status
    assert "skipped: no slurmctld, and no apt-get to install slurmctld slurmd" in done.stderr
