"""Test that a shell that holds an allocation (salloc) runs its trials there: real Slurm, stubs for Dynamo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.local_trials import alive, printed, require_ended
from support.slurm_rack import SlurmRack, commands_with
from support.slurm_runs import attempts, await_asking, job_ids, outcomes, record
from support.slurm_trials import SPLIT, small, stubbed, sweep
from support.waiting import wait_for

from tune.records.folders import read_attempt

pytestmark = pytest.mark.slow


@pytest.fixture
def held(slurm: SlurmRack, tmp_path: Path) -> Iterator[ExitStack]:
    """Yield a stack of processes; none of them may leave anything behind."""
    with ExitStack() as stack:
        yield stack
        require_ended(tmp_path)


def start(stack: ExitStack, slurm: SlurmRack, folder: Path, nodes: int, *words: str) -> subprocess.Popen[str]:
    """Start `tune` with cluster=slurm in a shell that holds `nodes` nodes."""
    holds = ("salloc", "--quiet", f"--nodes={nodes}", "--exclusive", "--gpus-per-node=4")
    command = (*holds, sys.executable, "-m", "tune", *slurm.words, *stubbed(folder / "stub"), *words)
    return stack.enter_context(
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )


def hosts(folder: Path) -> list[list[str]]:
    return [(attempt / "nodes").read_text().split() for attempt in attempts(folder)]


def driver(folder: Path) -> int:
    """Return the id of the process of `tune` in `folder`; salloc and srun have its words, too."""
    found = [p for p, command in alive(folder).items() if command.startswith(f"{sys.executable} -m tune ")]
    return min(found)


def test_trials_run_in_the_allocation_one_after_the_other(
    held: ExitStack, slurm: SlurmRack, tmp_path: Path
) -> None:
    words = (*sweep(tmp_path, SPLIT), *small(queries=20, seconds=2), "study.parallel=2")
    said = printed(start(held, slurm, tmp_path, 4, *words, "cluster.exclude=[g02]"))
    assert "This shell holds job 1, of 4 nodes" in said.replace(job_ids(tmp_path)[0], "1")
    assert [outcome["status"] for outcome in outcomes(tmp_path)] == ["measured"] * 2, said
    assert hosts(tmp_path) == [["g01", "g03", "g04"]] * 2
    assert len(set(job_ids(tmp_path))) == 1


def test_workers_are_kept_from_trial_to_trial(held: ExitStack, slurm: SlurmRack, tmp_path: Path) -> None:
    rates = "rate: {kind: float, path: load.target_qps, low: 9.0, high: 10.0, step: 1.0}"
    words = (*sweep(tmp_path, rates), *small(queries=20, seconds=2), "study.trials_per_job=2")
    said = printed(start(held, slurm, tmp_path, 3, *words))
    assert [outcome["status"] for outcome in outcomes(tmp_path)] == ["measured"] * 2, said
    (log,) = tmp_path.glob("runs/*/jobs/*/*_log.out")
    assert "keeping 6 of 6 processes" in log.read_text()
    first, second = (outcome["provenance"]["evidence"] for outcome in outcomes(tmp_path))
    assert first == second
    assert len(list(tmp_path.glob("runs/*/*/raw/1/logs/*_evidence.out"))) == 1, "its nodes were asked once"


def test_allocation_that_is_too_small_is_left_alone(
    held: ExitStack, slurm: SlurmRack, tmp_path: Path
) -> None:
    said = printed(start(held, slurm, tmp_path, 1, *small(queries=20, seconds=2)))
    assert "and a trial takes 3: jobs of their own are queued" in said
    assert outcomes(tmp_path)[0]["status"] == "measured", said
    assert hosts(tmp_path) == [["g02", "g03", "g04"]]


def test_ctrl_c_ends_the_step_with_a_record(held: ExitStack, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(held, slurm, tmp_path, 3, *small(queries=600, seconds=120))
    await_asking(tmp_path)
    os.kill(driver(tmp_path), signal.SIGINT)
    os.kill(driver(tmp_path), signal.SIGINT)
    said = printed(process)
    (attempt,) = attempts(tmp_path)
    assert record(attempt).cause == "infrastructure", said
    slurm.wait(slurm.all_ended, 15, "end of the allocation")


def test_killed_driver_leaves_nothing_in_the_allocation(
    held: ExitStack, slurm: SlurmRack, tmp_path: Path
) -> None:
    process = start(held, slurm, tmp_path, 3, *small(queries=600, seconds=120))
    await_asking(tmp_path)
    os.kill(driver(tmp_path), signal.SIGKILL)
    printed(process)
    wait_for(lambda: not commands_with(str(tmp_path / "runs")))
    (attempt,) = attempts(tmp_path)
    found = read_attempt(attempt)
    if found is not None:  # Slurm kills after KillWait, which a busy machine may need for other work
        assert found.cause == "infrastructure"


def test_lost_step_fails_its_attempt_and_not_the_allocation(
    held: ExitStack, slurm: SlurmRack, tmp_path: Path
) -> None:
    process = start(held, slurm, tmp_path, 3, *small(queries=600, seconds=120), "study.retries=0")
    await_asking(tmp_path)
    for victim, command in slurm.processes("g01").items():
        if "tune.orchestrator --job" in command and "srun" not in command:
            os.kill(victim, signal.SIGKILL)
    said = printed(process)
    assert process.returncode == 3, said
    assert "left no record of this attempt" in said


def test_preflight_asks_a_node_of_the_allocation(held: ExitStack, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(held, slurm, tmp_path, 3, "action=preflight", *small(queries=20, seconds=2))
    said = printed(process)
    assert "which this shell holds" in said
    assert "node g01: " in said
    assert "PENDING" not in said
