"""Test interrupted attempts with real processes: each ends with its record, and no process stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_deployment import (
    MARK,
    SERVERS,
    STOP_S,
    MakeTrial,
    assert_nothing_left,
    finish,
)
from support.waiting import wait_for

from tune.orchestrator.attempt import EXIT_INTERRUPTED
from tune.records.attempt_limit import AttemptLimit, write_limit
from tune.records.folders import read_attempt


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_everything_and_leaves_a_record(number: signal.Signals, make_trial: MakeTrial) -> None:
    trial = make_trial()
    with trial.start() as orchestrator:
        trial.pid("client")
        orchestrator.send_signal(number)
        assert finish(orchestrator) == EXIT_INTERRUPTED
    assert "interrupted after" in (trial.record.error or "")
    assert trial.record.cause == "infrastructure"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_an_attempt_ends_at_its_limit(make_trial: MakeTrial) -> None:
    trial = make_trial()
    trial.attempt.mkdir(parents=True, exist_ok=True)
    write_limit(trial.attempt, AttemptLimit(occupied_s=1.5))
    with trial.start() as orchestrator:
        assert finish(orchestrator) == EXIT_INTERRUPTED
    evidence = trial.record.evidence
    assert evidence
    assert (evidence.rule, evidence.repeats) == ("gpu_hours", False)
    assert trial.record.occupied_s >= 1.5
    assert_nothing_left(trial)


@pytest.mark.slow
def test_interrupt_while_workers_start_stops_them(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"unregistered": ["decode_w0"]})
    with trial.start() as orchestrator:
        trial.pid("decode_w0")
        orchestrator.send_signal(signal.SIGINT)
        assert finish(orchestrator) == EXIT_INTERRUPTED
    assert_nothing_left(trial)


@pytest.mark.slow
def test_killed_orchestrator_leaves_no_process(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"deaf": ["decode_w0"], "leaves": ["prefill_w0"]})
    with trial.start() as supervisor:
        trial.pid("client")
        os.kill(child_of(supervisor.pid), signal.SIGKILL)
        assert finish(supervisor) == 128 + signal.SIGKILL
    assert read_attempt(trial.attempt) is None, "a lost attempt: it ended without its record"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_killed_supervisor_leaves_no_process(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"leaves": ["prefill_w0"]})
    with trial.start() as supervisor:
        trial.pid("client")
        supervisor.kill()
        supervisor.wait()
        wait_for(lambda: not trial.alive())
    assert "interrupted after" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_orchestrator_and_supervisor_killed_together_leave_no_process(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"deaf": ["decode_w0"]})
    with trial.start() as supervisor:
        trial.pid("client")
        orchestrator = child_of(supervisor.pid)
        os.kill(supervisor.pid, signal.SIGSTOP)
        os.kill(orchestrator, signal.SIGKILL)
        supervisor.kill()
        wait_for(lambda: not trial.alive())


@pytest.mark.slow
def test_attempt_ends_when_its_parent_is_killed(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"deaf": ["decode_w0"]})
    asking = (
        "import os, subprocess, sys\n"
        f"argv = [sys.executable, '-m', 'tune.orchestrator', {str(trial.attempt)!r}]\n"
        "subprocess.Popen([*argv, '--parent', str(os.getpid())], start_new_session=True).wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", asking], env=trial.environment(), stderr=subprocess.PIPE
    ) as parent:
        trial.pid("client")
        parent.kill()
        parent.wait()
        wait_for(lambda: not trial.alive())
    assert "interrupted after" in (trial.record.error or "")
    assert_nothing_left(trial)


ENDS_THREAD_BY_THREAD = """
import ctypes, os, signal, subprocess, sys, threading, time
argv = [sys.executable, "-m", "tune.orchestrator", sys.argv[1], "--parent", str(os.getpid())]
subprocess.Popen(argv, start_new_session=True)
closing = threading.Event()

def main_thread_state():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]

def end():
    sys.stdin.read()
    closing.set()
    while main_thread_state() != "Z":
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=end).start()
closing.wait()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.slow
def test_parent_that_ends_thread_by_thread_stops_once(make_trial: MakeTrial) -> None:
    """The kernel signals the end of the thread that started the supervisor, then of its heir."""
    trial = make_trial(behaviour={"deaf": ["decode_w0"]})
    command = [sys.executable, "-c", ENDS_THREAD_BY_THREAD, str(trial.attempt)]
    with subprocess.Popen(
        command, env=trial.environment(), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        trial.pid("client")
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait()
        wait_for(lambda: not trial.alive())
    assert "interrupted after" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_process_that_ignores_the_signal_is_killed_with_its_children(make_trial: MakeTrial) -> None:
    trial = make_trial(
        behaviour={"client": 0, "deaf": ["prefill_w1", "frontend"], "leaves": ["prefill_w0", "decode_w0"]}
    )
    code, said = trial.run()
    assert code == 0, said
    killed = re.findall(rf"killing what did not end within {STOP_S:g} s: (.*)", said)
    assert {"frontend", "prefill_w1"} <= set(", ".join(killed).split(", "))
    assert "stopped; 2 processes that it had started were killed" in said
    assert_nothing_left(trial)


@pytest.mark.slow
def test_closed_progress_pipe_does_not_end_the_attempt(make_trial: MakeTrial) -> None:
    trial = make_trial(real_client=True)
    with trial.start() as orchestrator:
        assert orchestrator.stderr is not None
        orchestrator.stderr.close()
        assert finish(orchestrator) == 0
    assert trial.record.error is None
    assert_nothing_left(trial)


def child_of(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children")
    wait_for(lambda: children.read_text().split())
    return int(children.read_text().split()[0])


@pytest.mark.slow
def test_every_process_inherits_the_mark_of_the_trial(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"leaves": ["prefill_w0"]})
    with trial.start() as orchestrator:
        trial.pid("client")
        commands = list(trial.alive().values())
        orchestrator.send_signal(signal.SIGTERM)
        finish(orchestrator)
    assert sum("fake_dynamo.py" in command for command in commands) == len(SERVERS) + 1
    assert sum("sleep 1000" in command for command in commands) == 1
    assert MARK in trial.environment()
