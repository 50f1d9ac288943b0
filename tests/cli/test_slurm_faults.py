"""Test that a fault under cluster=slurm is named in the folder and leaves no job and no process (`slurm`).

Slurm, orchestrator, LoadGen and client are real; the deployment is made of stubs that start at once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.local_trials import Start, printed
from support.slurm_conf import COUNT, URGENT
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, await_asking, job_ids, kill_on, outcomes, record
from support.slurm_trials import SPLIT, small, stubbed, sweep
from support.waiting import wait_for

pytestmark = pytest.mark.slow

LONG = (*small(queries=300, seconds=60), "study.retries=0")
"""A trial that goes on until something happens to it."""


def error_of(folder: Path) -> str:
    (attempt,) = attempts(folder)
    found = record(attempt).error
    assert found is not None
    return found


@pytest.mark.parametrize(
    "victim",
    [
        ("g03", "--disaggregation-mode decode", "decode_w0"),
        ("g02", "--disaggregation-mode prefill", "prefill_w1"),
        ("g01", "dynamo.frontend", "frontend"),
        ("g01", "tune.client", "load client"),
    ],
)
def test_killed_process_fails_the_attempt(
    victim: tuple[str, str, str], start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    node, part, blamed = victim
    process = start(*slurm.words, *LONG, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    kill_on(slurm, node, part)
    said = printed(process)
    assert process.returncode == 3, said
    assert blamed in error_of(tmp_path)
    assert error_of(tmp_path) in said


def test_killed_worker_step_fails_the_attempt(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(*slurm.words, *LONG, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    kill_on(slurm, "g01", "--job-name=prefill_w1")
    said = printed(process)
    assert process.returncode == 3, said
    assert "prefill_w1" in error_of(tmp_path)


def test_killed_orchestrator_loses_the_attempt(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    """Kill its supervisor, too: no process on the rack can report it, so the driver does."""
    process = start(*slurm.words, *LONG, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    batch = [process for process, command in slurm.processes("g01").items() if "submitit" in command]
    for each in sorted(batch, reverse=True):
        os.kill(each, signal.SIGKILL)
    said = printed(process)
    assert process.returncode == 3, said
    assert "FAILED" in error_of(tmp_path)


def test_worker_that_never_starts_fails_the_attempt(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    stubs = stubbed(tmp_path / "stub", unregistered=["decode"])
    process = start(*slurm.words, *LONG, *stubs, "cluster.deadlines.quiet_s=3.0")
    said = printed(process)
    assert process.returncode == 3, said
    assert "did not get ready" in error_of(tmp_path)
    assert "decode_w0" in error_of(tmp_path)


def test_worker_that_ignores_sigterm_is_killed(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    stubs = stubbed(tmp_path / "stub", deaf=["prefill"])
    process = start(*slurm.words, *small(), *stubs, "cluster.deadlines.stop_s=1.0")
    said = printed(process)
    assert process.returncode == 0, said
    assert outcomes(tmp_path)[0]["status"] == "measured"


def test_scancel_is_recorded(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(*slurm.words, *LONG, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    slurm.run("scancel", *job_ids(tmp_path))
    said = printed(process)
    assert process.returncode == 3, said
    assert "CANCELLED" in error_of(tmp_path)
    assert "preempt" not in error_of(tmp_path)


def test_preemption_is_recorded(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(*slurm.words, *LONG, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    nodes = ("--exclusive", f"--nodes={COUNT}", f"--output={tmp_path}/other.out")
    slurm.run("sbatch", f"--partition={URGENT}", *nodes, "--wrap", "true")
    said = printed(process)
    assert process.returncode == 3, said
    assert "preempted" in error_of(tmp_path)
    assert "CANCELLED" not in error_of(tmp_path)
    slurm.wait(lambda: not slurm.jobs(), 30, "end of the job that came first")


def test_time_limit_is_recorded(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    """Slurm looks every 30 s whom to warn: here at least half a minute before the limit."""
    limit = ("cluster.time_limit=0:02:00", "cluster.signal_s=60")
    process = start(
        *slurm.words, *small(queries=600, seconds=120), "study.retries=0", *stubbed(tmp_path / "stub"), *limit
    )
    said = printed(process)
    assert process.returncode == 3, said
    assert "time limit" in error_of(tmp_path)


def test_dead_nodes_are_recorded(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    """Two trials at once: one loses the node of a worker, the other its head node and all who could tell."""
    words = sweep(tmp_path, SPLIT)
    process = start(*words, *slurm.words, *LONG, *stubbed(tmp_path / "stub"), "study.parallel=2")
    await_asking(tmp_path, 2)
    heads = {(attempt / "nodes").read_text().split()[0]: attempt for attempt in attempts(tmp_path)}
    assert set(heads) == {"g01", "g04"}
    slurm.kill_node("g02")
    slurm.kill_node("g04")
    wait_for(lambda: process.poll() is not None, 180)
    said = printed(process)
    assert process.returncode in (1, 3), said
    assert {outcome["status"] for outcome in outcomes(tmp_path)} == {"failed"}
    assert [record(heads[head]).failed_nodes for head in ("g01", "g04")] == [("g02",), ("g04",)]
    reasons = {outcome["trial_id"]: outcome["reason"] for outcome in outcomes(tmp_path)}
    for head, lost in (("g01", "g02"), ("g04", "g04")):
        reason = reasons[heads[head].parents[1].name]
        assert "NODE_FAIL" in reason
        assert lost in reason


def test_node_that_fails_twice_is_avoided_and_named(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    """Slurm still counts on the node when it gives it to the job."""
    words = (*slurm.words, *small(), *stubbed(tmp_path / "stub"), "study.retries=0")
    for number in (1, 2):
        slurm.kill_node("g02")
        said = printed(start(*words))
        assert "g02 failed twice" not in said
        assert record(attempts(tmp_path)[number - 1]).failed_nodes == ("g02",), said
        slurm.restore()
    process = start(*words, "study.once=true")
    said = printed(process)
    assert process.returncode == 3, said
    assert "g02 failed twice or more in this study: its further jobs avoid it" in said
    *_, job = job_ids(tmp_path)
    assert "ExcNodeList=g02" in slurm.run("scontrol", "show", "job", job).split()
    slurm.run("scancel", job)
