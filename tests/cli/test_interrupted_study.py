"""Ctrl-C in a study that searches for capacities on the simulated rack, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STUDY = (
    *(sys.executable, "-m", "tune", "+sweep=pd_split", "load.mode=capacity", "study.name=cut"),
    *("load.dataset.samples=2000", "load.min_duration_s=60.0", "load.min_queries=2000"),
)
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "preparation": lambda folder: any(folder.glob("cache/tune/prefill-pools/*.npz")),
    "first trial": lambda folder: any(folder.glob("runs/cut/*/raw/*/probe-1")),
    "after a trial": lambda folder: any(folder.glob("runs/cut/*/outcome.json")),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_study_and_keeps_its_records(tmp_path: Path, moment: str, times: int) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    running = subprocess.Popen(
        [*STUDY, "study.n_trials=16"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: MOMENTS[moment](tmp_path) or running.poll() is not None)
    assert running.poll() is None
    for _ in range(times):
        os.killpg(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=120)
    assert running.returncode == 130 if times == 1 else running.returncode in (130, -signal.SIGINT), text
    assert times == 2 or "run the same command to resume" in text
    assert "Traceback" not in text
    wait_until(lambda: not group_lives(running.pid))
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/cut/*/outcome.json")}
    trials = len(before) + 1
    done = subprocess.run(
        [*STUDY, f"study.n_trials={trials}"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(tmp_path.glob("runs/cut/*/outcome.json"))) == trials


def wait_until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def group_lives(leader: int) -> bool:
    """Return whether a process of the group is left."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True
