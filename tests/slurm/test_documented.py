"""What docs/slurm.md says to type where there is no cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

RACK = re.compile(r"^python (tests/support/slurm_rack\.py) python (-m tune .*)$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo", "slurm_nodes")
def test_the_command_for_one_machine_measures_a_trial(root: Path, tmp_path: Path) -> None:
    found = RACK.search((root / "docs" / "slurm.md").read_text(encoding="utf-8"))
    assert found
    rack, words = found.groups()
    (tmp_path / ".venv-dynamo").symlink_to(root / ".venv-dynamo")
    command = (sys.executable, str(root / rack), sys.executable, *shlex.split(words))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mock engines on Slurm" in done.stdout
