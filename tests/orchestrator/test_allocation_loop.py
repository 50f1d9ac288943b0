"""Test the attempts of one allocation: which run, when it ends, and which processes it keeps."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_deployment import MARK, SERVERS, Trial, finish, processes_with
from support.waiting import wait_for

from tune.errors import ResumableError
from tune.manifest.process_manifest import MANIFEST_FILE
from tune.orchestrator.slurm.allocation_loop import iter_queue
from tune.orchestrator.slurm.work_queue import (
    attempt_hosts,
    close_queue,
    enqueue_attempt,
    is_queue_closed,
    mark_started,
    queued_attempts,
)
from tune.records.folders import read_attempt


def attempts(job: Path, count: int) -> list[Path]:
    folders = [job.parents[1] / f"t{number}" / "raw" / "1" for number in range(count)]
    for attempt in folders:
        enqueue_attempt(job, attempt)
    return folders


def test_enqueued_attempts_are_read_in_order(job: Path) -> None:
    assert queued_attempts(job) == ()
    queued = attempts(job, 12)
    assert list(queued_attempts(job)) == queued
    assert (job / "queue" / "0001").read_text() == "t0/raw/1\n"
    (job / "queue" / "0013.tmp").write_text("half")
    assert list(queued_attempts(job)) == queued
    with pytest.raises(ValueError, match="subpath"):
        enqueue_attempt(job, Path("/elsewhere/t0/raw/1"))


def test_started_attempt_knows_its_hosts(tmp_path: Path) -> None:
    assert attempt_hosts(tmp_path) == ()
    mark_started(tmp_path, ["gb01", "gb02"])
    assert attempt_hosts(tmp_path) == ("gb01", "gb02")


def unlimited() -> float | None:
    return None


def test_closed_queue_is_worked_off(job: Path) -> None:
    queued = attempts(job, 3)
    close_queue(job)
    assert list(iter_queue(job, unlimited, print)) == queued


def test_queue_that_stays_empty_is_closed(job: Path) -> None:
    first, second = attempts(job, 2)
    assert list(iter_queue(job, unlimited, print, idle_s=0.0)) == [first, second]
    assert is_queue_closed(job)


def test_attempt_enqueued_during_another_is_run(job: Path) -> None:
    (first,) = attempts(job, 1)
    started = []
    for attempt in iter_queue(job, unlimited, print, idle_s=0.0):
        started.append(attempt)
        if attempt == first:
            enqueue_attempt(job, job.parents[1] / "late" / "raw" / "2")
    assert started == [first, job.parents[1] / "late" / "raw" / "2"]


def test_only_the_first_attempt_runs_without_time_left(job: Path) -> None:
    lines: list[str] = []
    first, _ = attempts(job, 2)
    close_queue(job)
    assert list(iter_queue(job, lambda: -1.0, lines.append)) == [first]
    assert "leaving it to another job" in lines[0]


def test_unknown_time_left_does_not_stop_the_queue(job: Path) -> None:
    def silent() -> float | None:
        raise ResumableError("squeue: no answer")

    queued = attempts(job, 2)
    close_queue(job)
    assert list(iter_queue(job, silent, print)) == queued


def test_abandoned_iteration_closes_the_queue(job: Path) -> None:
    attempts(job, 2)
    started = iter_queue(job, unlimited, print)
    next(started)
    assert not is_queue_closed(job)
    started.close()
    assert is_queue_closed(job)


ON_THIS_HOST = """
import sys
from pathlib import Path
from tune.orchestrator.supervision.supervisor import run_supervised
from tune.orchestrator.slurm.batch_step import print_line
from tune.orchestrator.slurm.allocation_loop import iter_queue, run_attempts
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses

class Launcher(ChildProcessLauncher):
    def nodes_clean(self):
        return "unclean" not in sys.argv

    def revoked_reason(self):
        return "taken back" if "revoked" in sys.argv else None

def work(scratch):
    allocate = lambda count: NodeAddresses(("here",) * count, ("127.0.0.1",) * count)
    queue = iter_queue(Path(sys.argv[1]), lambda: None, print_line)
    return run_attempts(queue, allocate, Launcher(scratch), print_line, last=False)

sys.exit(run_supervised(work, None, external_kill=True))
"""


class Pair:
    """Hold two trials of one study whose plans differ in one variable of decode_w0; `job` runs both."""

    def __init__(self, root: Path, keeps: bool, **behaviour: object) -> None:
        self.first = Trial(root, dict(behaviour), real_client="client" not in behaviour)
        plan = root / "t1" / "plan"
        shutil.copytree(self.first.folder.plan, plan)
        for folder, value in ((self.first.folder.plan, "1"), (plan, "2")):
            launch = json.loads((folder / MANIFEST_FILE).read_text()) | {"keeps_processes": keeps}
            (changed,) = (p for p in launch["processes"] if p["name"] == "decode_w0")
            changed["env"]["OTHER"] = value
            (folder / MANIFEST_FILE).write_text(json.dumps(launch))
        self.attempts = (self.first.attempt, root / "t1" / "raw" / "1")
        self.attempts[1].mkdir(parents=True)
        self.job = root / "jobs" / "1"
        self.job.mkdir(parents=True)
        for attempt in self.attempts:
            enqueue_attempt(self.job, attempt)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ON_THIS_HOST, str(self.job), *arguments]
        return subprocess.Popen(command, env=self.first.environment(), stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> tuple[int, str]:
        close_queue(self.job)
        with self.start(*arguments) as process:
            return finish(process), process.stderr.read() if process.stderr else ""

    def errors(self) -> list[str | None]:
        records = [read_attempt(attempt) for attempt in self.attempts]
        return [record.error if record else "no record" for record in records]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Yield the study's folder; kill what a failed test leaves running."""
    yield tmp_path / "study"
    for process in processes_with(f"{MARK}={tmp_path / 'study' / 'state'}"):
        os.kill(process, signal.SIGKILL)


def logs(attempt: Path) -> dict[str, bool]:
    """Return by process whether its log is another attempt's."""
    return {path.stem: path.is_symlink() for path in (attempt / "logs").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_equal_processes_are_kept_where_the_stack_allows(keeps: bool, root: Path) -> None:
    pair = Pair(root, keeps)
    code, lines = pair.run()
    assert code == 0, lines
    assert pair.errors() == [None, None]
    assert not any(logs(pair.attempts[0]).values())
    same = set(SERVERS) - {"decode_w0"} if keeps else set()
    assert {name for name, linked in logs(pair.attempts[1]).items() if linked} == same
    for name in same:
        log = pair.attempts[1] / "logs" / f"{name}.out"
        assert not log.readlink().is_absolute()
        assert log.read_text().count(f"{name} starts\n") == 1, "started once"
    assert attempt_hosts(pair.attempts[1]) == ("here",) * 3
    assert not pair.first.alive()


@pytest.mark.slow
def test_after_a_failure_everything_starts_anew(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    code, lines = pair.run()
    assert code == 3, lines
    assert all("the load client ended with exit code 3" in (error or "") for error in pair.errors())
    assert not any(logs(pair.attempts[1]).values())
    assert not pair.first.alive()


@pytest.mark.slow
def test_no_attempt_begins_on_unclean_nodes(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    code, lines = pair.run("unclean")
    assert code == 3
    assert "no other attempt begins there" in lines
    assert pair.errors()[1] == "no record"
    assert attempt_hosts(pair.attempts[1]) == ()


@pytest.mark.slow
def test_revoked_allocation_is_the_reason_of_the_failure(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    assert pair.run("revoked")[0] == 130
    assert re.fullmatch(r"taken back after \d+ s", pair.errors()[0] or "")
    assert pair.errors()[1] == "no record"
    assert not pair.first.alive()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_stop_signal_leaves_the_other_attempts(number: signal.Signals, root: Path) -> None:
    pair = Pair(root, keeps=True, client="waits")
    with pair.start() as process:
        pair.first.pid("client")
        for _ in range(2):  # the second changes nothing: Slurm signals each process twice
            process.send_signal(number)
        assert finish(process) == 130
    assert "interrupted after" in (pair.errors()[0] or "")
    assert pair.errors()[1] == "no record"
    assert attempt_hosts(pair.attempts[1]) == ()
    assert is_queue_closed(pair.job)
    assert not pair.first.alive()


@pytest.mark.slow
def test_stop_signal_while_idle_ends_kept_processes(root: Path) -> None:
    pair = Pair(root, keeps=True)
    with pair.start() as process:
        wait_for(lambda: read_attempt(pair.attempts[1]))
        assert pair.first.alive()
        process.send_signal(signal.SIGTERM)
        assert finish(process) == 130
    assert pair.errors() == [None, None]
    assert not pair.first.alive()
