"""Test folders for temporary files: each has one owner, and a later one removes what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tune.orchestrator.supervision.scratch import make_scratch

OWNER = """
import os, time
from tune.orchestrator.supervision.scratch import make_scratch
made = make_scratch()
(made / "file").touch()
if os.fork():
    os.waitpid(-1, 0)
else:
    print(made, flush=True)
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_only_abandoned_folders_are_removed(temporary: Path) -> None:
    (temporary / "tune-slurm-x").mkdir()
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    theirs = Path(owner.stdout.readline().strip())
    (fork,) = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
    own = make_scratch()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    another = make_scratch()
    assert theirs.exists(), "its fork uses it"
    os.kill(int(fork), signal.SIGKILL)
    owner.stdout.read()  # ends when the fork has
    last = make_scratch()
    assert not theirs.exists()
    assert {path for path in temporary.iterdir() if path.name.startswith("tune-scratch-")} == {
        own,
        another,
        last,
    }
    assert (temporary / "tune-slurm-x").exists()
