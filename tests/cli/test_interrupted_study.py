"""Test Ctrl-C and kills of studies on the simulated rack, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.waiting import wait_for

STUDY = (
    *(sys.executable, "-m", "tune", "+sweep=pd_split", "study.name=cut"),
    *("load.dataset.samples=2000", "load.min_duration_s=60.0", "load.min_queries=2000"),
)
FEWER_POOLS = (
    "sweep.space.prefill_workers.low=10",
    "sweep.space.prefill_max_num_tokens.values=[4096,8192,16384]",
)
"""Leave 24 of the 85 prefill pools that the preparation simulates: seconds, in which to press Ctrl-C."""
KINDS = {
    "capacity": ("load.mode=capacity", *FEWER_POOLS),
    "rates": ("load.concatenate_permutation=false", "study.parallel=2"),
}
GAP_S = 3.0
"""Seconds between two Ctrl-C of somebody who sees nothing happen."""

MOMENTS: dict[str, Callable[[Path], bool]] = {
    "preparation": lambda folder: any(folder.glob("cache/tune/prefill-pools/*.npz")),
    "first trial": lambda folder: any(folder.glob("runs/cut/*/raw/*/probe-1")),
    "after a trial": lambda folder: any(folder.glob("runs/cut/*/outcome.json")),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "moment", "presses"),
    [
        *(("capacity", moment, presses) for moment in MOMENTS for presses in ("once", "twice")),
        ("capacity", "preparation", "twice at once"),
        ("rates", "after a trial", "twice at once"),
    ],
)
def test_ctrl_c_ends_the_study_and_keeps_its_records(
    tmp_path: Path, kind: str, moment: str, presses: str
) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    study = (*STUDY, *KINDS[kind])
    running = subprocess.Popen(
        [*study, "study.n_trials=400" if kind == "rates" else "study.n_trials=16"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: MOMENTS[moment](tmp_path) or running.poll() is not None, within_s=240)
    assert running.poll() is None
    press(running, presses)
    _, text = running.communicate(timeout=240)
    assert running.returncode == 130 or (presses != "once" and running.returncode == -signal.SIGINT), text
    assert presses != "once" or "run the same command to resume" in text
    assert "Traceback" not in text
    wait_for(lambda: not group_lives(running.pid), within_s=240)
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/cut/*/outcome.json")}
    trials = len(before) + 1
    done = subprocess.run(
        [*study, f"study.n_trials={trials}"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(tmp_path.glob("runs/cut/*/outcome.json"))) == trials


def press(running: subprocess.Popen[str], presses: str) -> None:
    """Send Ctrl-C to a study; the second, GAP_S later, only where it has not ended by then."""
    os.killpg(running.pid, signal.SIGINT)
    if presses == "once":
        return
    with suppress(subprocess.TimeoutExpired):
        running.wait(GAP_S if presses == "twice" else 0)
        return
    os.killpg(running.pid, signal.SIGINT)


def group_lives(leader: int) -> bool:
    """Return whether a process of the group is left."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_study_resumes_after_ctrl_c(tmp_path: Path) -> None:
    study = [sys.executable, "-m", "tune", "+sweep=pd_split", "study.n_trials=200", "study.parallel=2"]
    running = subprocess.Popen(
        study, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    recorded = tmp_path / "runs" / "pd_split-sim"
    wait_for(lambda: len(list(recorded.glob("*/outcome.json"))) >= 3, within_s=180)
    os.killpg(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=120)
    assert running.returncode == 130, text
    assert "run the same command to resume" in text
    assert text.index("Ctrl-C: ending what runs") < text.index("Interrupted.")
    assert "Traceback" not in text
    before = {path: path.read_bytes() for path in recorded.glob("*/outcome.json")}
    assert 3 <= len(before) < 200
    done = subprocess.run(
        [*study, f"study.n_trials={len(before) + 4}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.slow
def test_study_resumes_after_a_kill(tmp_path: Path) -> None:
    study = [
        sys.executable,
        "-m",
        "tune",
        "+sweep=pd_split",
        "study.n_trials=12",
        "load.min_duration_s=120.0",
        "load.concatenate_permutation=false",
    ]
    running = subprocess.Popen(
        study, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    recorded = tmp_path / "runs" / "pd_split-sim"
    wait_for(lambda: len(list(recorded.glob("*/outcome.json"))) >= 2, within_s=180)
    workers = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.kill()
    running.wait(timeout=120)
    assert workers
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), within_s=180)
    done = subprocess.run(study, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(study, cwd=whole, capture_output=True, check=True)
    rankings = [base / "reports" / "pd_split-sim" / "ranking.json" for base in (tmp_path, whole)]
    assert rankings[0].read_text() == rankings[1].read_text()
