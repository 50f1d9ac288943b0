"""Provide one short recorded study for the tests of the Python API and of the export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHORT = ("load.min_duration_s=60", "load.concatenate_permutation=false")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of a study named `short`, eight trials on the simulated rack."""
    folder = tmp_path_factory.mktemp("recorded")
    words = ["+sweep=pd_split", "study.n_trials=8", "study.name=short", *SHORT]
    done = subprocess.run(
        [sys.executable, "-m", "tune", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (folder / "runs" / "short" / "study.json").exists(), done.stderr
    return folder
