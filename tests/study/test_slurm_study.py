"""Test that the process of a study on Slurm may die at any instant; Slurm's programs are replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from support.composed import composed
from support.fake_slurm import FakeSlurm
from support.slurm_nodes import Nodes
from support.waiting import wait_for

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.backend import SlurmBackend
from tune.config import compose_overrides, trial_overrides
from tune.errors import ResumableError
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import StudyFolder, write_attempt
from tune.records.outcome import Outcome
from tune.study.identity import study_record
from tune.study.loop import open_study, run_study

CALIBRATION = composed().cluster.calibration
assert CALIBRATION is not None

WORDS = (
    *("+sweep=pd_split", "cluster=slurm", "cluster.partition=rack", "search=random"),
    "load.mode=fixed",
    *("load.min_duration_s=60.0", "load.concatenate_permutation=false"),
)


@dataclass
class Driver:
    """Run a study as its command does, in this process or in one that can be killed."""

    root: Path
    slurm: FakeSlurm
    words: tuple[str, ...]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert CALIBRATION is not None
        self.nodes = Nodes(self.slurm, CALIBRATION)

    def run(self) -> list[Outcome]:
        composition = compose_overrides(self.words)
        settings = composition.settings
        share = settings.study.trials_per_job
        backend = SlurmBackend(settings.cluster, share, self._hear, every_s=0.02, grace_s=0.0)
        with (
            open_study(self.folder.root, study_record(settings, "one", self.words)) as folder,
            backend as running,
        ):
            return run_study(folder, settings, running, partial(trial_overrides, settings=settings))

    def _hear(self, line: str) -> None:
        with (self.root / "said").open("a") as file:
            file.write(line + "\n")

    @property
    def printed(self) -> str:
        said = self.root / "said"
        return said.read_text() if said.exists() else ""

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root / "runs" / "one")

    def start(self) -> multiprocessing.process.BaseProcess:
        """Run the study in a process of its own; its exit code is 0 where the study ends as expected."""
        process = multiprocessing.get_context("fork").Process(target=self._run_as_a_program)
        process.start()
        return process

    def _run_as_a_program(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.run()
        except ResumableError:
            os._exit(3)
        except KeyboardInterrupt:
            os._exit(130)

    def finish(self) -> int | None:
        """Run the study while the nodes work; its exit code."""
        return self.work_until_end(self.start())

    def work_until_end(self, process: multiprocessing.process.BaseProcess) -> int | None:
        """Let the nodes work until the study ends; its exit code."""

        def ended() -> bool:
            self.nodes.work()
            return not process.is_alive()

        wait_for(ended, within_s=180)
        return process.exitcode


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Driver]:
    def make(*words: str) -> Driver:
        slurm = FakeSlurm(tmp_path)
        monkeypatch.setenv("PATH", str(slurm.path), prepend=":")
        return Driver(tmp_path, slurm, (*WORDS, *words))

    return make


MakeDriver = Callable[..., Driver]


def require_each_paid_once(driver: Driver, n_trials: int) -> None:
    outcomes = driver.folder.outcomes()
    assert [outcome.status for outcome in outcomes] == ["measured"] * n_trials
    assert [len(outcome.attempts) for outcome in outcomes] == [1] * n_trials
    assert len(driver.slurm.jobs) == n_trials
    assert len(set(driver.nodes.measured)) == len(driver.nodes.measured) == n_trials


@pytest.mark.slow
def test_study_submits_one_job_a_trial_one_at_a_time(driver: MakeDriver) -> None:
    study = driver("study.n_trials=3")
    assert study.finish() == 0
    require_each_paid_once(study, 3)
    record = study.folder.read_study()
    assert record is not None
    assert (record.backend, record.parallel) == ("slurm", 1)


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["sbatch", "registered", "squeue"])
def test_killed_study_resumes_and_measures_nothing_twice(driver: MakeDriver, instant: str) -> None:
    study = driver("study.n_trials=3", "study.parallel=2")
    study.slurm.kill_caller_at(instant)
    process = study.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert study.finish() == 0
    require_each_paid_once(study, 3)


@pytest.mark.slow
def test_recorded_attempt_without_outcome_is_judged(driver: MakeDriver) -> None:
    study = driver("study.n_trials=2")
    process = study.start()
    wait_for(lambda: study.slurm.jobs)
    process.kill()
    process.join()
    study.nodes.work()
    assert study.folder.outcomes() == ()
    assert study.finish() == 0
    require_each_paid_once(study, 2)


@pytest.mark.slow
def test_retry_that_ended_unobserved_is_not_run_again(driver: MakeDriver) -> None:
    study = driver("study.n_trials=1", "study.retries=0")
    process = study.start()
    wait_for(lambda: study.slurm.jobs)
    study.nodes.end("101", "NODE_FAIL")
    process.join(30)
    assert process.exitcode == 3
    again = study.start()
    wait_for(lambda: len(study.slurm.jobs) == 2)
    again.kill()
    again.join()
    study.nodes.work()
    assert study.finish() == 0
    (outcome,) = study.folder.outcomes()
    assert [attempt.class_ for attempt in outcome.attempts] == ["failed", "measured"]
    assert len(study.slurm.jobs) == 2


@pytest.mark.slow
def test_dead_node_fails_its_trial_and_not_the_study(driver: MakeDriver) -> None:
    study = driver("study.n_trials=3", "study.retries=0")
    process = study.start()
    wait_for(lambda: study.slurm.jobs)
    study.nodes.end("101", "NODE_FAIL")
    wait_for(lambda: len(study.slurm.jobs) == 2)
    assert study.work_until_end(process) == 0
    assert [outcome.status for outcome in study.folder.outcomes()] == ["failed", "measured", "measured"]
    assert study.finish() == 0
    assert [outcome.status for outcome in study.folder.outcomes()] == ["measured"] * 3
    assert len(study.slurm.jobs) == 4


@pytest.mark.slow
def test_trial_of_a_dead_node_runs_again_at_once(driver: MakeDriver) -> None:
    study = driver("study.n_trials=3")
    process = study.start()
    wait_for(lambda: study.slurm.jobs)
    study.nodes.end("101", "NODE_FAIL")
    assert study.work_until_end(process) == 0
    assert [outcome.status for outcome in study.folder.outcomes()] == ["measured"] * 3
    (first, *_) = study.folder.outcomes()
    assert [(attempt.class_, attempt.cause) for attempt in first.attempts] == [
        ("failed", "infrastructure"),
        ("measured", None),
    ]
    assert first.attempts[0].evidence
    assert first.attempts[0].evidence.rule == "node_failed"
    assert len(study.slurm.jobs) == 4


@pytest.mark.slow
def test_trial_that_failed_often_runs_again_only_with_rerun(driver: MakeDriver) -> None:
    study = driver("study.n_trials=1", "study.retries=0")
    for tries in (1, 2, 3, 3):
        process = study.start()
        wait_for(lambda tries=tries: len(study.slurm.jobs) == tries)
        study.nodes.end(f"{100 + tries}", "NODE_FAIL")
        process.join(30)
        assert process.exitcode == 3
    assert len(study.slurm.jobs) == 3
    study.words = (*study.words, "rerun=true")
    assert study.finish() == 0
    assert len(study.slurm.jobs) == 4


@pytest.mark.slow
def test_trial_that_an_engine_rejects_is_infeasible_and_never_tried_again(driver: MakeDriver) -> None:
    study = driver("study.n_trials=1")
    process = study.start()
    wait_for(lambda: len(study.slurm.jobs) == 1)
    (attempt,) = Allocation(study.slurm.folder("101")).attempts()
    stamp, words = "2026-01-01T00:00:00+00:00", "prefill_w0: 1 validation error for TorchLlmArgs"
    record = AttemptRecord(
        started_at=stamp, ended_at=stamp, occupied_s=50.0, error=words, cause="configuration"
    )
    write_attempt(attempt, record)
    study.nodes.end("101", "COMPLETED")
    process.join(30)
    assert [study.finish() for _ in range(2)] == [0, 0]
    (outcome,) = study.folder.outcomes()
    assert (outcome.status, outcome.reason, len(outcome.attempts)) == ("infeasible", words, 1)
    assert list(study.slurm.jobs) == ["101"]


@pytest.mark.slow
def test_rerun_resumes_its_own_attempt(driver: MakeDriver) -> None:
    study = driver("study.n_trials=1")
    assert study.finish() == 0
    study.words = (*study.words, "rerun=true")
    process = study.start()
    wait_for(lambda: len(study.slurm.jobs) == 2)
    process.kill()
    process.join()
    assert study.finish() == 0
    assert len(study.slurm.jobs) == 2
    (outcome,) = study.folder.outcomes()
    assert len(outcome.attempts) == 2


@pytest.mark.slow
def test_first_ctrl_c_waits_and_submits_nothing(driver: MakeDriver) -> None:
    study = driver("study.n_trials=4", "study.parallel=2")
    process = study.start()
    wait_for(lambda: len(study.slurm.jobs) == 2 and "job 102" in study.printed)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: "Ctrl-C: no further trial is begun. Still waiting for job 101" in study.printed)
    assert process.is_alive()
    study.nodes.work()
    process.join(30)
    assert process.exitcode == 130
    assert len(study.slurm.jobs) == 2
    assert len(study.folder.outcomes()) == 2
    assert study.finish() == 0
    require_each_paid_once(study, 4)


@pytest.mark.slow
def test_second_ctrl_c_leaves_jobs_running(driver: MakeDriver) -> None:
    study = driver("study.n_trials=2")
    process = study.start()
    wait_for(lambda: study.slurm.jobs and "job 101" in study.printed)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: "Ctrl-C once more" in study.printed)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 130
    assert study.slurm.jobs["101"]["state"] == "PENDING"
    assert "Left running: job 101" in study.printed
    assert study.finish() == 0
    require_each_paid_once(study, 2)


@pytest.mark.slow
def test_once_collects_and_submits_without_waiting(driver: MakeDriver) -> None:
    study = driver("study.n_trials=3", "study.parallel=2", "study.once=true")
    with pytest.raises(ResumableError, match=r"study.once: 2 of this study's trials wait or run"):
        study.run()
    with pytest.raises(ResumableError, match="2 of"):
        study.run()
    assert len(study.slurm.jobs) == 2
    assert "Left running: job 101" in study.printed
    study.nodes.work()
    with pytest.raises(ResumableError, match="1 of"):
        study.run()
    study.nodes.work()
    assert len(study.run()) == 3
    require_each_paid_once(study, 3)


@pytest.mark.slow
def test_trials_share_allocations(driver: MakeDriver) -> None:
    study = driver("study.n_trials=5", "study.trials_per_job=3")
    assert study.finish() == 0
    assert len(study.slurm.jobs) == 2
    assert len(study.folder.outcomes()) == 5
    assert len(study.nodes.measured) == 5


@pytest.mark.slow
def test_finished_study_does_not_query_slurm(driver: MakeDriver) -> None:
    study = driver("study.n_trials=2")
    assert study.finish() == 0
    queries = len(study.slurm.asked)
    assert len(study.run()) == 2
    assert len(study.slurm.asked) == queries
