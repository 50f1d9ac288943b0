"""Test that nodes with another Python than the driver's get an environment and a compiled LoadGen.

Stands for nodes of another architecture, which no test machine has beside its own. Needs a package index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.slurm_rack import SlurmRack
from support.slurm_runs import outcomes
from support.slurm_trials import small, stubbed

pytestmark = pytest.mark.slow


def other_python() -> Path:
    """Return a supported Python of another version than this one; skip the test without any."""
    here = f"python3.{sys.version_info.minor}"
    installed = [str(path) for path in (Path.home() / ".pyenv" / "versions").glob("3.1[123].*/bin")]
    path = os.pathsep.join([*installed, os.environ["PATH"]])
    names = {"python3.11", "python3.12", "python3.13"} - {here}
    found = [program for name in sorted(names) if (program := shutil.which(name, path=path))]
    if not found:
        pytest.skip("no second Python of 3.11 to 3.13 on this machine")
    return Path(found[0])


def test_environment_of_the_nodes_is_made_and_used(slurm: SlurmRack, tmp_path: Path) -> None:
    python, tools = other_python(), tmp_path / "tools"
    tools.mkdir()
    (tools / python.name).symlink_to(python)
    path = f"{tools}:/usr/bin:/bin"
    shell = os.environ | {"PATH": path, "PIP_NO_BINARY": "mlcommons-loadgen"}
    nodes = tmp_path / "nodes" / "bin" / "python3"

    def tune(*words: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "tune", *slurm.words, *words, f"cluster.python={nodes}")
        return subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)

    made = tune("action=bootstrap", "cluster.time_limit=1:00:00")
    assert made.returncode == 0, made.stderr
    assert f"Python {python.name.removeprefix('python')}" in made.stdout
    again = tune("action=bootstrap")
    assert "is there already" in again.stdout
    trial = tune(*small(queries=20, seconds=2), *stubbed(tmp_path / "stub"))
    assert outcomes(tmp_path)[0]["status"] == "measured", trial.stderr
