"""Attempts of one allocation: which are taken, when it ends, and what goes on from one to the next."""

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
from support.fake_deployment import MARK, SERVERS, Trial, finish, processes_with, wait_for

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


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "study" / "jobs" / "1"


def attempts(job: Path, count: int) -> list[Path]:
    found = [job.parents[1] / f"t{number}" / "raw" / "1" for number in range(count)]
    for attempt in found:
        enqueue_attempt(job, attempt)
    return found


def test_what_is_posted_is_read_in_order(job: Path) -> None:
    assert queued_attempts(job) == ()
    posted = attempts(job, 12)
    assert list(queued_attempts(job)) == posted
    assert (job / "inbox" / "0001").read_text() == "t0/raw/1\n"
    (job / "inbox" / "0013.tmp").write_text("half")
    assert list(queued_attempts(job)) == posted
    with pytest.raises(ValueError, match="subpath"):
        enqueue_attempt(job, Path("/elsewhere/t0/raw/1"))


def test_an_attempt_that_was_taken_knows_its_hosts(tmp_path: Path) -> None:
    assert attempt_hosts(tmp_path) == ()
    mark_started(tmp_path, ["gb01", "gb02"])
    assert attempt_hosts(tmp_path) == ("gb01", "gb02")


def unlimited() -> float | None:
    return None


def test_a_closed_inbox_is_worked_off(job: Path) -> None:
    posted = attempts(job, 3)
    close_queue(job)
    assert list(iter_queue(job, unlimited, print)) == posted


def test_an_inbox_that_stays_empty_is_closed(job: Path) -> None:
    first, second = attempts(job, 2)
    assert list(iter_queue(job, unlimited, print, idle_s=0.0)) == [first, second]
    assert is_queue_closed(job)


def test_what_comes_while_an_attempt_runs_is_taken(job: Path) -> None:
    (first,) = attempts(job, 1)
    taken = []
    for attempt in iter_queue(job, unlimited, print, idle_s=0.0):
        taken.append(attempt)
        if attempt == first:
            enqueue_attempt(job, job.parents[1] / "late" / "raw" / "2")
    assert taken == [first, job.parents[1] / "late" / "raw" / "2"]


def test_the_first_is_tried_and_no_other_without_time_for_it(job: Path) -> None:
    said: list[str] = []
    first, _ = attempts(job, 2)
    close_queue(job)
    assert list(iter_queue(job, lambda: -1.0, said.append)) == [first]
    assert "leaving it to another job" in said[0]


def test_time_that_nobody_tells_is_no_reason_to_stop(job: Path) -> None:
    def silent() -> float | None:
        raise ResumableError("squeue: no answer")

    posted = attempts(job, 2)
    close_queue(job)
    assert list(iter_queue(job, silent, print)) == posted


def test_who_stops_in_the_middle_closes_the_inbox(job: Path) -> None:
    attempts(job, 2)
    taken = iter_queue(job, unlimited, print)
    next(taken)
    assert not is_queue_closed(job)
    taken.close()
    assert is_queue_closed(job)


ON_THIS_HOST = """
import sys
from pathlib import Path
from tune.orchestrator.supervision.supervisor import guarded
from tune.orchestrator.slurm.batch_step import say
from tune.orchestrator.slurm.allocation_loop import iter_queue, run_attempts
from tune.orchestrator.launcher import ChildProcessLauncher, Nodes

class ProcessLauncher(ChildProcessLauncher):
    def swept(self):
        return "unswept" not in sys.argv

    def withdrawn(self):
        return "taken back" if "withdrawn" in sys.argv else None

def work(scratch):
    lent = lambda count: Nodes(("here",) * count, ("127.0.0.1",) * count)
    inbox = iter_queue(Path(sys.argv[1]), lambda: None, say)
    return run_attempts(inbox, lent, ProcessLauncher(scratch), say, last=False)

sys.exit(guarded(work, None, patient=True))
"""


class Pair:
    """Two trials of one study; their plans differ in one variable of decode_w0. `job` is to run both."""

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
        self.job = root / "jobs" / "1"
        for attempt in self.attempts:
            enqueue_attempt(self.job, attempt)

    def start(self, *backend: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ON_THIS_HOST, str(self.job), *backend]
        return subprocess.Popen(command, env=self.first.environment(), stderr=subprocess.PIPE, text=True)

    def run(self, *backend: str) -> tuple[int, str]:
        close_queue(self.job)
        with self.start(*backend) as process:
            return finish(process), process.stderr.read() if process.stderr else ""

    def errors(self) -> list[str | None]:
        records = [read_attempt(attempt) for attempt in self.attempts]
        return [record.error if record else "no record" for record in records]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The study's folder; what a failed test leaves running is killed."""
    yield tmp_path / "study"
    for process in processes_with(f"{MARK}={tmp_path / 'study' / 'state'}"):
        os.kill(process, signal.SIGKILL)


def logs(attempt: Path) -> dict[str, bool]:
    """By process, whether its log is another attempt's."""
    return {path.stem: path.is_symlink() for path in (attempt / "logs").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_the_same_goes_on_where_the_stack_allows(keeps: bool, root: Path) -> None:
    pair = Pair(root, keeps)
    code, said = pair.run()
    assert code == 0, said
    assert pair.errors() == [None, None]
    assert not any(logs(pair.attempts[0]).values())
    same = set(SERVERS) - {"decode_w0"} if keeps else set()
    assert {name for name, linked in logs(pair.attempts[1]).items() if linked} == same
    for name in same:
        log = pair.attempts[1] / "logs" / f"{name}.out"
        assert not log.readlink().is_absolute()
        assert log.read_text() == f"{name} starts\n", "started once"
    assert attempt_hosts(pair.attempts[1]) == ("here",) * 3
    assert not pair.first.alive()


@pytest.mark.slow
def test_after_a_failure_everything_starts_anew(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    code, said = pair.run()
    assert code == 3, said
    assert all("the load client ended with exit code 3" in (error or "") for error in pair.errors())
    assert not any(logs(pair.attempts[1]).values())
    assert not pair.first.alive()


@pytest.mark.slow
def test_on_nodes_that_something_is_left_on_no_other_attempt_begins(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    code, said = pair.run("unswept")
    assert code == 3
    assert "no other attempt begins there" in said
    assert pair.errors()[1] == "no record"
    assert attempt_hosts(pair.attempts[1]) == ()


@pytest.mark.slow
def test_nodes_that_are_taken_back_are_the_reason_and_no_process_is(root: Path) -> None:
    pair = Pair(root, keeps=True, client=3)
    assert pair.run("withdrawn")[0] == 130
    assert re.fullmatch(r"taken back after \d+ s", pair.errors()[0] or "")
    assert pair.errors()[1] == "no record"
    assert not pair.first.alive()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_told_to_stop_it_leaves_the_other_attempts(number: signal.Signals, root: Path) -> None:
    pair = Pair(root, keeps=True, client="waits")
    with pair.start() as process:
        pair.first.pid("client")
        for _ in range(2):  # the second one changes nothing: Slurm tells every process, and says it twice
            process.send_signal(number)
        assert finish(process) == 130
    assert "interrupted after" in (pair.errors()[0] or "")
    assert pair.errors()[1] == "no record"
    assert attempt_hosts(pair.attempts[1]) == ()
    assert is_queue_closed(pair.job)
    assert not pair.first.alive()


@pytest.mark.slow
def test_told_to_stop_while_it_waits_for_more_it_ends_what_it_kept(root: Path) -> None:
    pair = Pair(root, keeps=True)
    with pair.start() as process:
        wait_for(lambda: read_attempt(pair.attempts[1]))
        assert pair.first.alive()
        process.send_signal(signal.SIGTERM)
        assert finish(process) == 130
    assert pair.errors() == [None, None]
    assert not pair.first.alive()
