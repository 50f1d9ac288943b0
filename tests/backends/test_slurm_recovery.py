"""Test that killed processes and torn or late records of a Slurm study lose no job and double none."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.slurm_study import FACTS, SPEC, Study, in_its_own_process, record_of

from tune.backends.slurm.backend import SlurmBackend
from tune.backends.slurm.pending_jobs import pending_jobs
from tune.orchestrator.slurm.work_queue import mark_started
from tune.records.folders import read_attempt


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["sbatch", "registered"])
def test_driver_killed_around_sbatch_finds_or_submits_its_job(study: Study, instant: str) -> None:
    attempt = study.attempt("a")
    study.slurm.kill_caller_at(instant)
    assert in_its_own_process(lambda: study.backend.submit(SPEC, attempt)) == -signal.SIGKILL
    record = study.allocation().read()
    assert record is not None
    assert record.job_id is None
    backend = study.again()
    handle = backend.resume(attempt)
    assert handle is not None
    assert backend.poll(handle) == "waiting"
    (job_id,) = study.slurm.jobs
    found = study.allocation().read()
    assert found is not None
    assert found.job_id == job_id
    assert (study.allocation().folder / f"{job_id}_submitted.pkl").exists(), "which the job waits for"
    study.nodes.work()
    assert backend.poll(handle) == "ended"
    assert len(study.slurm.jobs) == 1


@pytest.mark.parametrize("came_to", ["folder", "record"])
def test_allocation_without_attempt_is_ignored(study: Study, came_to: str) -> None:
    attempt = study.attempt("a")
    study.allocation().folder.mkdir(parents=True)
    if came_to == "record":
        study.allocation().write(nodes=18)
    assert study.backend.resume(attempt) is None
    study.backend.submit(SPEC, attempt)
    assert len(study.slurm.jobs) == 1
    assert study.allocation(2).attempts() == (attempt,)


@pytest.mark.slow
def test_job_without_id_waits_while_slurm_is_silent(study: Study) -> None:
    attempt = study.attempt("a")
    study.slurm.kill_caller_at("registered")
    in_its_own_process(lambda: study.backend.submit(SPEC, attempt))
    study.slurm.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    backend = study.again()
    handle = backend.resume(attempt)
    assert handle is not None
    assert [backend.poll(handle) for _ in range(3)] == ["waiting"] * 3
    assert len(study.slurm.jobs) == 1
    study.slurm.fail("squeue", None)
    assert backend.poll(handle) == "waiting"
    assert len(study.slurm.jobs) == 1
    assert [line for line in study.said if "not answer" in line or "answers again" in line] == study.said[:2]


def test_job_that_ended_unobserved_is_found_by_its_files(study: Study) -> None:
    attempt = study.attempt("a")
    study.slurm.kill_caller_at("registered")
    in_its_own_process(lambda: study.backend.submit(SPEC, attempt))
    (study.allocation().folder / "101_0_log.out").write_text("slurmstepd: node g03 vanished\n")
    study.slurm.forget("101")
    backend = study.again()
    handle = backend.resume(attempt)
    assert handle is not None
    assert backend.poll(handle) == "ended"
    assert study.slurm.jobs == {}
    assert "Slurm no longer knows job 101" in record_of(handle)
    assert "node g03 vanished" in record_of(handle)


def test_attempt_of_another_process_is_found_by_its_recorded_id(study: Study) -> None:
    handle = study.submit("a")
    backend = study.again()
    assert backend.resume(Path(handle)) == handle
    assert backend.poll(handle) == "waiting"
    study.nodes.work()
    assert backend.poll(handle) == "ended"
    assert study.slurm.asked.count("sbatch") == 1


def test_attempt_that_was_not_submitted_is_not_resumed(study: Study) -> None:
    study.submit("a")
    assert study.again().resume(study.attempt("b")) is None


@pytest.mark.slow
@pytest.mark.parametrize("left", ['{"job_id": "1', ""])
def test_torn_job_record_is_written_anew(study: Study, left: str) -> None:
    first = study.submit("a")
    torn = study.allocation().record_path
    torn.write_text(left)
    study.again()
    second = study.submit("b")
    assert study.backend.resume(Path(first)) == first
    assert [job.job_id for job in pending_jobs(study.root / "runs" / "one")] == ["101", "102"]
    assert [study.backend.poll(handle) for handle in (first, second)] == ["waiting"] * 2
    assert sorted(study.slurm.jobs) == ["101", "102"]
    record = study.allocation().read()
    assert record is not None
    assert (record.job_id, record.nodes) == ("101", 18)
    assert f"{torn} was not readable; it is written anew, for job 101." in study.said
    study.nodes.work()
    assert {study.backend.poll(handle) for handle in (first, second)} == {"ended"}


def test_late_record_is_waited_for(study: Study) -> None:
    handle = study.submit("a")
    backend = SlurmBackend(FACTS, 1, study.said.append, every_s=0.0, grace_s=3600.0)
    assert backend.resume(Path(handle)) == handle
    study.nodes.end("101", "COMPLETED")
    assert backend.poll(handle) == "running"
    study.nodes.measure(Path(handle))
    assert backend.poll(handle) == "ended"
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.error is None


@pytest.mark.slow
def test_late_record_of_a_forgotten_job_is_waited_for(study: Study) -> None:
    """From when the end was noticed, by whichever process: study.once asks once in each."""
    handle = study.submit("a")
    mark_started(Path(handle), ["g01"])
    study.slurm.forget("101")
    patient = SlurmBackend(FACTS, 1, study.said.append, every_s=0.0, grace_s=3600.0)
    patient.resume(Path(handle))
    assert patient.poll(handle) == "running"
    later = SlurmBackend(FACTS, 1, study.said.append, every_s=0.0, grace_s=3600.0)
    later.resume(Path(handle))
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    (study.allocation().folder / "end_noticed").write_text(f"{two_hours_ago.isoformat()}\n")
    assert later.poll(handle) == "ended"
    assert "Slurm no longer knows job 101" in record_of(handle)
