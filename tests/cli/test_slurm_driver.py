"""Test the driver of cluster=slurm killed, interrupted, run once, and cancelled. Stubs replace Dynamo."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.fake_deployment import finish
from support.local_trials import Start, printed
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, await_asking, job_ids, outcomes, record
from support.slurm_trials import SPLIT, small, stubbed, sweep
from support.waiting import wait_for

pytestmark = pytest.mark.slow

SOON = small(queries=60, seconds=8)


def test_driver_killed_during_a_job_collects_it_once(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    words = (*slurm.words, *SOON, *stubbed(tmp_path / "stub"))
    process = start(*words)
    await_asking(tmp_path)
    process.send_signal(signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    jobs = slurm.jobs()
    assert len(jobs) == 1
    again = start(*words)
    said = printed(again)
    assert again.returncode == 0, said
    assert job_ids(tmp_path) == list(jobs)
    (attempt,) = attempts(tmp_path)
    assert record(attempt).error is None
    (outcome,) = outcomes(tmp_path)
    assert outcome["status"] == "measured"
    assert len(outcome["attempts"]) == 1


def test_killed_driver_collects_a_job_that_ended_meanwhile(
    start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    words = (*slurm.words, *small(), *stubbed(tmp_path / "stub"))
    process = start(*words)
    await_asking(tmp_path)
    process.send_signal(signal.SIGKILL)
    finish(process)
    slurm.wait(lambda: not slurm.jobs(), 60, "ended job")
    again = start(*words)
    said = printed(again)
    assert again.returncode == 0, said
    assert len(job_ids(tmp_path)) == 1
    assert outcomes(tmp_path)[0]["status"] == "measured"


def test_driver_interrupted_once_waits_for_its_job(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    process = start(*slurm.words, *SOON, *stubbed(tmp_path / "stub"))
    await_asking(tmp_path)
    (job,) = job_ids(tmp_path)
    process.send_signal(signal.SIGINT)
    said = printed(process)
    assert process.returncode == 130
    assert f"job {job}" in said.partition("no further trial")[2]
    (attempt,) = attempts(tmp_path)
    assert record(attempt).error is None, said
    assert outcomes(tmp_path)[0]["status"] == "measured"


def test_driver_interrupted_twice_leaves_the_job_to_the_next(
    start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    words = (*slurm.words, *SOON, *stubbed(tmp_path / "stub"))
    process = start(*words)
    await_asking(tmp_path)
    (job,) = job_ids(tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.stdout
    text = ""
    while "Ctrl-C once more" not in text:
        line = process.stdout.readline()
        assert line, text
        text += line
    assert f"job {job}" in text.partition("no further trial")[2]
    process.send_signal(signal.SIGINT)
    assert finish(process) == 130
    assert slurm.jobs() == (job,)
    again = start(*words)
    said = printed(again)
    assert again.returncode == 0, said
    assert job_ids(tmp_path) == [job]


def test_once_submits_and_the_next_call_collects(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    words = (*slurm.words, *small(), *stubbed(tmp_path / "stub"), "study.once=true")
    first = start(*words)
    said = printed(first)
    assert first.returncode == 3, said
    (job,) = job_ids(tmp_path)
    assert job in said
    slurm.wait(lambda: not slurm.jobs(), 60, "ended job")
    second = start(*words)
    said = printed(second)
    assert second.returncode == 0, said
    assert job_ids(tmp_path) == [job]
    assert outcomes(tmp_path)[0]["status"] == "measured"


def test_cancel_ends_running_jobs(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    words = (*slurm.words, *small(queries=300, seconds=60), *stubbed(tmp_path / "stub"))
    process = start(*words)
    await_asking(tmp_path)
    (job,) = job_ids(tmp_path)
    cancel = start("action=cancel", *slurm.words, "study.name=single-slurm")
    said = printed(cancel)
    assert cancel.returncode == 0, said
    assert job in said
    said = printed(process)
    assert process.returncode == 3, said
    wait_for(lambda: not slurm.jobs())
    (attempt,) = attempts(tmp_path)
    assert "CANCELLED" in (record(attempt).error or "")


def test_killed_driver_resumes_in_its_allocation(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    words = (*sweep(tmp_path, SPLIT), *slurm.words, *small(), *stubbed(tmp_path / "stub"))
    process = start(*words, "study.trials_per_job=2")
    await_asking(tmp_path)
    process.send_signal(signal.SIGKILL)
    finish(process)
    again = start(*words, "study.trials_per_job=2")
    said = printed(again)
    assert again.returncode == 1, said
    assert len(job_ids(tmp_path)) == 1
    assert [outcome["status"] for outcome in outcomes(tmp_path)] == ["measured"] * 2
