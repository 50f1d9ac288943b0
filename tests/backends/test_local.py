"""Test what the local backend does beyond the contract of all backends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.fake_deployment import Trial, finish
from support.waiting import wait_for

from tune.backends.local import LocalBackend
from tune.errors import ConfigurationError

MakeTrial = Callable[..., Trial]

STUDY = """
import sys
from pathlib import Path
from tune.backends.local import LocalBackend
from tune.records.folders import trial_of
with LocalBackend(print, sys.argv[1]) as backend:
    attempt = Path(sys.argv[2])
    handle = backend.submit(trial_of(attempt).read_spec(), attempt)
    while backend.poll(handle) != "ended":
        pass
"""


@pytest.fixture
def make_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTrial]:
    """Provide a maker of trials of stand-ins, and kill what a failed test leaves running."""
    with ExitStack() as stack:

        def make(name: str = "one", **changes: Any) -> Trial:
            trial = Trial(tmp_path / name, **changes)
            for variable, value in trial.environment().items():
                monkeypatch.setenv(variable, value)
            stack.callback(trial.kill_all)
            return trial

        yield make


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """Return the path of a lock that no other test uses, which may run at the same time."""
    return str(tmp_path)


def unheard(line: str) -> None:
    raise AssertionError(line)


def accepts(backend: LocalBackend, trial: Trial, attempt: Path) -> bool:
    """Return whether the place takes the trial.

    A process that ends has no environment by which `alive` would know it, and still holds the lock.
    """
    try:
        backend.submit(trial.spec, attempt)
    except ConfigurationError:
        return False
    return True


def test_taken_port_is_one_clear_error_before_the_start(make_trial: MakeTrial, lock: str) -> None:
    trial = make_trial()
    with (
        socket.create_server(("127.0.0.1", trial.ports["frontend"])),
        LocalBackend(unheard, lock) as backend,
        pytest.raises(
            ConfigurationError, match=f"stack.frontend_port={trial.ports['frontend']} for frontend"
        ),
    ):
        backend.submit(trial.spec, trial.attempt)
    assert not list(trial.attempt.iterdir())


@pytest.mark.slow
def test_missing_program_is_one_clear_error_before_the_start(make_trial: MakeTrial, lock: str) -> None:
    trial = make_trial()
    path = trial.folder.plan / "processes.json"
    path.write_text(path.read_text().replace(sys.executable, "no-such-program"))
    with (
        LocalBackend(unheard, lock) as backend,
        pytest.raises(ConfigurationError, match=r"Found no no-such-program\. .* make dynamo installs"),
    ):
        backend.submit(trial.spec, trial.attempt)
    assert not list(trial.attempt.iterdir())


def test_one_process_at_a_time_runs_deployments(make_trial: MakeTrial, lock: str) -> None:
    trial = make_trial()
    with LocalBackend(unheard, lock) as first, LocalBackend(unheard, lock) as second:
        first.submit(trial.spec, trial.attempt)
        with pytest.raises(ConfigurationError, match="another process of tune runs a deployment"):
            second.submit(trial.spec, trial.attempt)
    with LocalBackend(unheard, lock) as third:
        third.submit(trial.spec, trial.folder.new_attempt())
    assert not trial.alive()


@pytest.mark.slow
def test_attempts_wait_for_each_other_with_one_message(make_trial: MakeTrial, lock: str) -> None:
    said: list[str] = []
    trials = [make_trial(str(number), behaviour={"client": 0}) for number in range(3)]
    with LocalBackend(said.append, lock) as backend:
        handles = [backend.submit(trial.spec, trial.attempt) for trial in trials]
        assert [backend.poll(handle) for handle in handles] == ["running", "waiting", "waiting"]
        backend.cancel(handles[1])
        wait_for(lambda: backend.poll(handles[2]) == "ended")
        assert [backend.poll(handle) for handle in handles] == ["ended"] * 3
    assert len(said) == 1
    assert "one trial at a time" in said[0]
    assert not (trials[1].attempt / "attempt.json").exists(), "it was cancelled before it began"
    assert trials[2].record.started_at > trials[0].record.ended_at


@pytest.mark.slow
def test_cancelled_attempt_stops_and_is_recorded(make_trial: MakeTrial, lock: str) -> None:
    trial = make_trial(behaviour={"deaf": ["prefill_w0"], "leaves": ["decode_w0"]})
    with LocalBackend(unheard, lock) as backend:
        handle = backend.submit(trial.spec, trial.attempt)
        trial.pid("client")
        backend.cancel(handle)
        wait_for(lambda: backend.poll(handle) == "ended")
        assert not trial.alive()
    assert "interrupted after" in (trial.record.error or "")


@pytest.mark.slow
def test_attempt_cancelled_twice_is_recorded(make_trial: MakeTrial, lock: str) -> None:
    """The second cancel comes at once, the third while what is deaf is being stopped."""
    trial = make_trial(behaviour={"deaf": ["client", "decode_w0"]})
    with LocalBackend(unheard, lock) as backend:
        handle = backend.submit(trial.spec, trial.attempt)
        trial.pid("client")
        backend.cancel(handle)
        backend.cancel(handle)
        wait_for((trial.attempt / "attempt.json").exists)
        backend.cancel(handle)
        wait_for(lambda: backend.poll(handle) == "ended")
    assert "interrupted after" in (trial.record.error or "")


@pytest.mark.slow
def test_leaving_the_backend_stops_what_runs(make_trial: MakeTrial, lock: str) -> None:
    trial = make_trial()
    with LocalBackend(unheard, lock) as backend:
        backend.submit(trial.spec, trial.attempt)
        trial.pid("frontend")
    assert not trial.alive()
    assert "interrupted after" in (trial.record.error or "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_a_killed_backend(
    number: signal.Signals, make_trial: MakeTrial, lock: str
) -> None:
    trial = make_trial()
    with subprocess.Popen([sys.executable, "-c", STUDY, lock, str(trial.attempt)]) as study:
        trial.pid("client")
        os.kill(study.pid, number)
        finish(study)
        wait_for(lambda: not trial.alive())
    assert "interrupted after" in (trial.record.error or "")
    attempt = trial.folder.new_attempt()
    with LocalBackend(unheard, lock) as backend:
        wait_for(lambda: accepts(backend, trial, attempt))
