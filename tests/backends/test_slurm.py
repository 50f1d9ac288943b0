"""The Slurm backend with replaced programs: what the contract of all backends does not cover."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.fake_slurm import FakeSlurm
from support.slurm_nodes import Nodes

from tune.backends.slurm.allocation import Allocation, allocation_of
from tune.backends.slurm.backend import SlurmBackend
from tune.backends.slurm.job_monitor import JobMonitor
from tune.backends.slurm.pending_jobs import pending_jobs
from tune.backends.slurm.submission import submit_job
from tune.config import compose_overrides
from tune.deploy.job_script import job_script, sbatch_options
from tune.errors import ConfigurationError
from tune.orchestrator.slurm.work_queue import is_queue_closed, mark_started
from tune.records.folders import TrialFolder, read_attempt
from tune.spec.trial import TrialSpec

WORDS = ("cluster=slurm", "cluster.partition=rack", "load.min_duration_s=60.0")
SETTINGS = compose_overrides([*WORDS, "load.concatenate_permutation=false"]).settings
SPEC, FACTS = SETTINGS.trial_spec, SETTINGS.cluster
CALIBRATION = compose_overrides([]).settings.cluster.calibration
assert CALIBRATION is not None


@dataclass
class Study:
    """Hold a study's folder beside the replaced Slurm, and a backend that submits to it."""

    root: Path
    slurm: FakeSlurm
    trials_per_job: int = 1
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert CALIBRATION is not None
        self.nodes = Nodes(self.slurm, CALIBRATION)
        self.backend = self.again()

    def again(self, trials_per_job: int | None = None) -> SlurmBackend:
        """Return a backend as the next process of the same study makes it."""
        share = trials_per_job or self.trials_per_job
        self.backend = SlurmBackend(FACTS, share, self.said.append, every_s=0.0, grace_s=0.0, retry_s=0.0)
        return self.backend

    def attempt(self, name: str, spec: TrialSpec = SPEC) -> Path:
        """Return the folder of a new attempt of the trial `name`, as a study prepares it."""
        trial = TrialFolder(self.root / "runs" / "one" / name)
        trial.write_spec(spec)
        attempt = trial.new_attempt()
        attempt.mkdir(parents=True)
        return attempt

    def submit(self, name: str) -> str:
        return self.backend.submit(SPEC, self.attempt(name))

    def allocation(self, number: int = 1) -> Allocation:
        return Allocation(self.root / "runs" / "one" / "jobs" / str(number))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    slurm = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", str(slurm.path), prepend=":")
    return Study(tmp_path, slurm)


def record_of(handle: str) -> str:
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.cause == "infrastructure"
    return record.error or ""


def in_its_own_process(what: Callable[[], object]) -> int | None:
    """Exit code of a copy of this process that does `what`; negative where a signal ended it."""
    copy = multiprocessing.get_context("fork").Process(target=what)
    copy.start()
    copy.join(30)
    return copy.exitcode


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


def directives(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["cluster.gpus_per_node_option=true", "cluster.exclusive=false", "cluster.qos=high"],
        ["cluster.reservation=mine", "cluster.extra_sbatch=['--constraint=gb200','--overcommit']"],
        ["cluster.partition='a b'", "cluster.account=null", "cluster.time_limit='1-00:00:00'"],
    ],
)
def test_submitit_submits_the_options_of_job_sbatch(study: Study, words: list[str]) -> None:
    facts = compose_overrides([*WORDS, *words]).settings.cluster
    handle = study.submit("a")
    allocation = allocation_of(Path(handle))
    assert allocation is not None
    job_id = submit_job(allocation, sbatch_options(facts, 18, 4))
    ours = directives(job_script(facts, 18, 4))
    theirs = directives((allocation.folder / f"{job_id}_submission.sh").read_text())
    del ours["output"]
    its_own = {name: theirs.pop(name) for name in ("output", "open-mode")}
    assert theirs == ours
    assert Path(its_own["output"]).parent == allocation.folder


def test_exported_sbatch_options_change_no_job(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch takes SBATCH_TIMELIMIT and the like before a script's directives, and hands all of them on; in a
    job with SLURM_ARRAY_JOB_ID submitit looks for the files of that job."""
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "55")
    monkeypatch.setenv("TMPDIR", str(study.root))
    study.submit("a")
    assert study.slurm.jobs["101"]["inherited"] == []
    assert os.environ["SBATCH_TIMELIMIT"] == "1", "the shell's own programs keep theirs"


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
    assert record.held_s == 83


def test_job_cancelled_in_the_queue_costs_nothing(study: Study) -> None:
    handle = study.submit("a")
    study.slurm.set("101", state="CANCELLED", held="0:00")
    assert study.backend.poll(handle) == "ended"
    assert "job 101 ended as CANCELLED" in record_of(handle)
    assert "never began to run" in record_of(handle)
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.held_s == 0


@pytest.mark.slow
def test_accounting_shows_the_end_while_the_controller_is_silent(study: Study) -> None:
    handle = study.submit("a")
    study.slurm.fail("squeue", "slurm_load_jobs error: Socket timed out")
    study.slurm.fail("scontrol", "slurm_load_jobs error: Socket timed out")
    assert study.backend.poll(handle) == "waiting"
    state = json.loads(study.slurm.state.read_text())
    state["accounts"] = ["101|TIMEOUT|0:0|g[01-18]|240|2026-11-23T17:57:56"]
    study.slurm.state.write_text(json.dumps(state))
    assert study.backend.poll(handle) == "ended"
    assert "ended as TIMEOUT" in record_of(handle)


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


def test_job_cancelled_in_the_queue_is_not_waited_for(study: Study) -> None:
    handle = study.submit("a")
    backend = SlurmBackend(FACTS, 1, study.said.append, every_s=0.0, grace_s=3600.0)
    backend.resume(Path(handle))
    study.slurm.set("101", state="CANCELLED", held="0:00")
    assert backend.poll(handle) == "ended"


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


def test_one_query_covers_all_jobs(study: Study) -> None:
    for name in "abc":
        study.submit(name)
    now = {"s": 0.0}
    watch = JobMonitor(study.said.append, every_s=3.0, clock=lambda: now["s"])
    for job_id in study.slurm.jobs:
        watch.follow(job_id, "trial")
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


POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
    "user's size and/or time limits)"
)
"""Preceded, in Slurm 22.05, by a line with the limit."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Invalid qos specification",
        "sbatch: error: Batch job submission failed: Requested node configuration",
        f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}",
        f"sbatch: error: QOSMaxNodePerJobLimit\n{POLICY}",
    ],
)
def test_refusal_is_reported_in_slurms_words(study: Study, words: str) -> None:
    study.slurm.fail("sbatch", words)
    with pytest.raises(ConfigurationError) as refusal:
        study.submit("a")
    assert words in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "patience_s"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect)", None),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", None),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", 24 * 3600),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", 24 * 3600),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", 24 * 3600),
        (POLICY, 1800),
    ],
)
def test_rejected_job_is_submitted_again_within_its_patience(
    study: Study, words: str, patience_s: float | None
) -> None:
    now = {"s": 0.0}
    study.backend = SlurmBackend(
        FACTS, 1, study.said.append, every_s=0.0, retry_s=30.0, clock=lambda: now["s"]
    )
    study.slurm.fail("sbatch", words)
    handle = study.submit("a")
    for now["s"] in (0.0, 10.0, 31.0, 40.0, patience_s or 1e6):
        assert study.backend.poll(handle) == "waiting"
    assert study.slurm.asked.count("sbatch") == 3, "every half minute"
    assert [line for line in study.said if words in line] == study.said, "said once"
    now["s"] += 61.0
    if patience_s:
        with pytest.raises(ConfigurationError, match=r"policy[\s\S]*It was tried for"):
            study.backend.poll(handle)
    study.slurm.fail("sbatch", None)
    now["s"] += 61.0
    assert study.backend.poll(handle) == "waiting"
    assert len(study.slurm.jobs) == 1
    study.nodes.work()
    assert study.backend.poll(handle) == "ended"


def test_refused_job_is_submitted_by_the_resumed_study(study: Study) -> None:
    study.slurm.fail("sbatch", "sbatch: error: Invalid account")
    attempt = study.attempt("a")
    with pytest.raises(ConfigurationError):
        study.backend.submit(SPEC, attempt)
    study.slurm.fail("sbatch", None)
    backend = study.again()
    handle = backend.resume(attempt)
    assert handle is not None
    assert backend.poll(handle) == "waiting"
    assert len(study.slurm.jobs) == 1


def test_path_that_sbatch_would_expand_is_refused(study: Study) -> None:
    trial = TrialFolder(study.root / "runs" / "50%j" / "a")
    trial.write_spec(SPEC)
    with pytest.raises(ConfigurationError, match="holds a %"):
        study.backend.submit(SPEC, trial.new_attempt())
    assert study.slurm.jobs == {}


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
