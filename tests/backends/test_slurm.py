"""Test what the Slurm backend does beyond the contract of all backends, with replaced programs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.slurm_study import FACTS, SPEC, Study, record_of

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.backend import SlurmBackend
from tune.backends.slurm.job_monitor import JobMonitor
from tune.backends.slurm.pending_jobs import pending_jobs
from tune.orchestrator.slurm.work_queue import is_queue_closed, mark_started
from tune.records.folders import read_attempt


def test_slurm_attempts_are_detached(study: Study) -> None:
    assert study.backend.capabilities.detached


def test_one_trial_is_one_job_with_a_closed_queue(study: Study) -> None:
    handle = study.submit("a")
    (job_id,) = study.slurm.jobs
    options = study.slurm.jobs[job_id]["options"]
    assert options["nodes"] == "18"
    assert options["comment"] == f"tune:{study.allocation().folder}"
    assert study.allocation().attempts() == (Path(handle),)
    assert is_queue_closed(study.allocation().folder)
    record = study.allocation().read()
    assert record is not None
    assert (record.job_id, record.nodes) == (job_id, 18)
    assert study.backend.poll(handle) == "waiting"
    study.nodes.work()
    assert study.backend.poll(handle) == "ended"
    assert read_attempt(Path(handle)) is not None


def test_process_is_the_batch_step_with_one_path(study: Study) -> None:
    study.submit("a")
    folder = study.allocation().folder
    (script,) = folder.glob("*_submission.sh")
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-1].startswith("exec ")
    assert commands[-1].endswith(f"-m submitit.core._submit {folder}")
    assert "srun" not in script.read_text()
    (pickle,) = folder.glob("*_submitted.pkl")
    assert str(folder).encode() in pickle.read_bytes()
    assert pickle.stat().st_size < 1000, "a path, no configuration"


def test_lost_job_is_recorded_with_slurms_facts(study: Study) -> None:
    handle = study.submit("a")
    mark_started(Path(handle), ["g01"])
    study.slurm.set("101", state="RUNNING", nodes="g[01-18]")
    assert study.backend.poll(handle) == "running"
    study.slurm.set("101", held="1:23", exit_code="0:9", failed="g07")
    study.nodes.end("101", "NODE_FAIL")
    assert study.backend.poll(handle) == "ended"
    assert "job 101 ended as NODE_FAIL, exit code 0:9, on g[01-18], node g07 is down" in record_of(handle)
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.occupied_s == 83


def test_job_cancelled_in_the_queue_costs_nothing(study: Study) -> None:
    handle = study.submit("a")
    study.slurm.set("101", state="CANCELLED", held="0:00")
    assert study.backend.poll(handle) == "ended"
    assert "job 101 ended as CANCELLED" in record_of(handle)
    assert "never began to run" in record_of(handle)
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.occupied_s == 0


@pytest.mark.slow
def test_accounting_shows_the_end_while_the_controller_is_silent(study: Study) -> None:
    """A record that is older than the submission is that of another job, which had the id before."""
    handle = study.submit("a")
    study.slurm.fail("squeue", "slurm_load_jobs error: Socket timed out")
    study.slurm.fail("scontrol", "slurm_load_jobs error: Socket timed out")
    assert study.backend.poll(handle) == "waiting"
    study.slurm.account("101|TIMEOUT|0:0|g[01-18]|240|2025-11-23T17:50:00|2025-11-23T17:57:56")
    assert study.backend.poll(handle) == "waiting"
    assert [job.info.state for job in pending_jobs(study.root / "runs" / "one")] == ["UNKNOWN"]
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    study.slurm.account(f"101|TIMEOUT|0:0|g[01-18]|240|{now}|{now}")
    assert [job.info.state for job in pending_jobs(study.root / "runs" / "one")] == ["TIMEOUT"]
    assert study.backend.poll(handle) == "ended"
    assert "ended as TIMEOUT" in record_of(handle)


@pytest.mark.parametrize("left", [None, "{"])
def test_forgotten_job_is_no_older_job_of_the_same_id(study: Study, left: str | None) -> None:
    """Also where the record of the allocation is torn, whose files show when it began."""
    handle = study.submit("a")
    if left is not None:
        study.allocation().record_path.write_text(left)
        study.again().resume(Path(handle))
    study.slurm.forget("101")
    study.slurm.account("101|COMPLETED|0:0|g[01-02]|240|2025-11-23T17:50:00|2025-11-23T17:57:56")
    assert study.backend.poll(handle) == "ended"
    assert "Slurm no longer knows job 101" in record_of(handle)


def test_job_cancelled_in_the_queue_is_not_waited_for(study: Study) -> None:
    handle = study.submit("a")
    backend = SlurmBackend(FACTS, 1, study.said.append, every_s=0.0, grace_s=3600.0)
    backend.resume(Path(handle))
    study.slurm.set("101", state="CANCELLED", held="0:00")
    assert backend.poll(handle) == "ended"


def test_one_query_covers_all_jobs(study: Study) -> None:
    for name in "abc":
        study.submit(name)
    now = {"s": 0.0}
    watch = JobMonitor(study.said.append, every_s=3.0, clock=lambda: now["s"])
    for job_id in study.slurm.jobs:
        watch.follow(job_id, "trial", datetime.now(UTC))
    queries = []
    for now["s"] in (0.0, 1.0, 2.9, 3.0, 4.0, 7.0):
        watch.refresh()
        queries.append(study.slurm.asked.count("squeue"))
    assert queries == [1, 1, 1, 2, 2, 3]
    assert {watch.info(job_id).state for job_id in study.slurm.jobs} == {"PENDING"}


@pytest.mark.slow
def test_each_state_is_printed_once(study: Study) -> None:
    handles = [study.submit(name) for name in "abc"]
    for handle in handles * 2:
        study.backend.poll(handle)
    study.slurm.set("102", state="RUNNING", reason="None", nodes="g[01-18]")
    study.backend.poll(handles[0])
    assert [line for line in study.said if "job 102" in line] == [
        "job 102 (trial b): submitted",
        "job 102 (trial b): PENDING (Resources)",
        "job 102 (trial b): PENDING (Resources) → RUNNING on g[01-18]",
    ]


@pytest.mark.slow
def test_wait_that_never_ends_is_said_when_its_reason_changes(study: Study) -> None:
    handle = study.submit("a")
    for reason in ("Resources", "Priority", "BadConstraints", "BadConstraints", "JobHeldAdmin", "Resources"):
        study.slurm.set("101", reason=reason)
        assert study.backend.poll(handle) == "waiting"
    _, *said = [line.removeprefix("job 101 (trial a): ") for line in study.said]
    assert [line.partition(";")[0] for line in said] == [
        "PENDING (Resources)",
        "PENDING (Resources) → PENDING (BadConstraints)",
        "PENDING (BadConstraints) → PENDING (JobHeldAdmin)",
        "PENDING (JobHeldAdmin) → PENDING (Resources)",
    ]
    assert "it cannot begin as it was submitted" in said[1]
    assert "scontrol release" in said[2]
    study.slurm.set("101", reason="JobHeldUser")
    (job,) = pending_jobs(study.root / "runs" / "one")
    assert "it is held" in job.text


@pytest.mark.slow
def test_open_allocation_takes_trials_up_to_its_limit(study: Study) -> None:
    study.again(trials_per_job=3)
    for name in "abcd":
        handle = study.submit(name)
        while study.backend.poll(handle) != "ended":
            study.nodes.work()
    assert [len(Allocation(study.slurm.folder(job_id)).attempts()) for job_id in study.slurm.jobs] == [3, 1]
    assert [is_queue_closed(study.allocation(number).folder) for number in (1, 2)] == [True, False]
    with study.backend:
        pass
    assert is_queue_closed(study.allocation(2).folder), "nobody is left who would post"


@pytest.mark.slow
@pytest.mark.parametrize("trials_per_job", [1, 3])
def test_open_allocation_of_a_killed_process_is_used_or_closed(study: Study, trials_per_job: int) -> None:
    study.again(trials_per_job=3)
    handle = study.submit("a")
    while study.backend.poll(handle) != "ended":
        study.nodes.work()
    assert not is_queue_closed(study.allocation().folder)
    study.again(trials_per_job)
    study.submit("b")
    assert len(study.allocation().attempts()) == (2 if trials_per_job == 3 else 1)
    assert is_queue_closed(study.allocation().folder) == (trials_per_job == 1)
    assert len(study.slurm.jobs) == (1 if trials_per_job == 3 else 2)


@pytest.mark.slow
def test_parallel_trials_get_several_allocations(study: Study) -> None:
    backend = study.again(trials_per_job=4)
    handles = [study.submit(name) for name in "ab"]
    assert len(study.slurm.jobs) == 2
    while {backend.poll(handle) for handle in handles} != {"ended"}:
        study.nodes.work()
    for name in "cd":
        study.submit(name)
    assert [len(study.allocation(number).attempts()) for number in (1, 2)] == [2, 2]


def test_trial_of_another_size_gets_another_allocation(study: Study) -> None:
    backend = study.again(trials_per_job=4)
    handle = study.submit("a")
    while backend.poll(handle) != "ended":
        study.nodes.work()
    smaller = SPEC.model_copy(update={"hardware": SPEC.hardware.model_copy(update={"nodes": 9})})
    backend.submit(smaller, study.attempt("b", smaller))
    assert [job["options"]["nodes"] for job in study.slurm.jobs.values()] == ["18", "9"]


@pytest.mark.slow
def test_attempt_that_was_not_started_gets_another_job(study: Study) -> None:
    backend = study.again(trials_per_job=4)
    first = study.submit("a")
    while backend.poll(first) != "ended":
        study.nodes.work()
    study.nodes.refuse = 1
    second = study.submit("b")
    study.nodes.end("101", "COMPLETED")
    assert backend.poll(second) == "waiting"
    assert len(study.slurm.jobs) == 2
    assert study.allocation(2).attempts() == (Path(second),)
    study.nodes.work()
    assert backend.poll(second) == "ended"
    assert study.nodes.measured == [Path(first), Path(second)]
    assert study.again().resume(Path(second)) == second


def test_cancelled_attempt_is_not_submitted_again(study: Study) -> None:
    backend = study.again(trials_per_job=4)
    first = study.submit("a")
    while backend.poll(first) != "ended":
        study.nodes.work()
    second = study.submit("b")
    study.slurm.set("101", state="CANCELLED")
    assert backend.poll(second) == "ended"
    assert "CANCELLED" in record_of(second)
    assert len(study.slurm.jobs) == 1


def test_cancelling_ends_the_job(study: Study) -> None:
    handle = study.submit("a")
    study.backend.cancel(handle)
    assert study.backend.poll(handle) == "ended"
    assert "CANCELLED" in record_of(handle)


def test_leaving_slurm_prints_running_jobs_and_ends_none(study: Study) -> None:
    with study.backend:
        study.backend.poll(study.submit("a"))
    assert study.slurm.jobs["101"]["state"] == "PENDING"
    assert "Left running: job 101 (trial a): PENDING (Resources)" in study.said[-1]
