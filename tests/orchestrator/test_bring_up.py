"""Test what ends a bring-up: plans, ports, programs, and workers that refuse or never register."""

from __future__ import annotations

import json
import socket
import sys
from itertools import count
from pathlib import Path

import pytest
from support.deployed import deployed
from support.fake_deployment import MakeTrial, Trial, assert_nothing_left

from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.readiness import ProgressDeadline, bring_up


@pytest.mark.slow
def test_worker_that_ends_before_it_is_ready_fails_at_once(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(behaviour={"ends": {"decode_w0": [0, "bye"]}}, quiet_s=60.0)
    code, said = trial.run()
    assert code == 3
    assert "decode_w0 ended with exit code 0" in said
    assert "| bye" in (trial.record.error or "")
    assert trial.record.cause == "infrastructure"
    assert "cluster.deadlines" not in (trial.record.error or ""), "the end was noticed, no deadline passed"
    assert_nothing_left(trial)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB.",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for TorchLlmArgs\nmax_num_tokenz",
    ],
)
def test_engine_that_rejects_its_configuration_is_a_configuration_failure(
    words: str, make_trial: MakeTrial
) -> None:
    trial = make_trial(behaviour={"ends": {"prefill_w1": [1, words]}})
    assert trial.run()[0] == 1
    assert trial.record.cause == "configuration"
    assert words.splitlines()[-1] in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_frontend_log_is_no_evidence_against_the_configuration(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"ends": {"frontend": [1, "CUDA out of memory"]}})
    assert trial.run()[0] == 3
    assert trial.record.cause == "infrastructure"


class ClockAfter:
    """Return 0 until one of `said` holds `words`, then one second more with every look."""

    def __init__(self, said: list[str], words: str) -> None:
        self._said, self._words, self._seconds = said, words, count()

    def __call__(self) -> float:
        return float(next(self._seconds) if any(self._words in line for line in self._said) else 0)


@pytest.mark.slow
def test_worker_that_never_registers_is_named_with_its_log(make_trial: MakeTrial) -> None:
    """The clock stands still until all others have registered; the frontend logs every question."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"]})
    said: list[str] = []
    clock = ClockAfter(said, "prefill 1 of 2, backend 1 of 1")
    with deployed(trial) as deployment, pytest.raises(AttemptFailed) as failed:
        bring_up(deployment, ProgressDeadline(20.0, 60.0, clock), said.append)
    error = str(failed.value)
    assert failed.value.cause == "infrastructure"
    assert "nothing moved for 20 s (cluster.deadlines.quiet_s)" in error
    assert "prefill 1 of 2" in error
    assert "Missing: 1 of the workers prefill_w0, prefill_w1." in error
    assert "prefill_w0 starts" in error
    assert "decode_w0" not in error
    assert_nothing_left(trial)


REFUSAL = "1 validation error for TorchLlmArgs\nmax_num_tokenz"


@pytest.mark.slow
def test_worker_that_rejects_its_configuration_and_waits_is_noticed_within_a_minute(
    make_trial: MakeTrial,
) -> None:
    """A launcher swallows the exit code: the process goes on, and only its log says why nothing happens."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"], "says": {"prefill_w0": REFUSAL}})
    said: list[str] = []
    clock = ClockAfter(said, "prefill 1 of 2, backend 1 of 1")
    with deployed(trial) as deployment, pytest.raises(AttemptFailed) as failed:
        bring_up(deployment, ProgressDeadline(900.0, 3600.0, clock), said.append)
    assert failed.value.cause == "configuration"
    assert str(failed.value).startswith("prefill_w0 rejects its configuration and does not end")
    assert "max_num_tokenz" in str(failed.value)
    assert clock() < 60
    assert_nothing_left(trial)


@pytest.mark.slow
def test_a_worker_that_refuses_and_then_repeats_itself_is_noticed_and_its_refusal_quoted(
    make_trial: MakeTrial,
) -> None:
    """The other ranks of its launcher wait and say so, with times and counters, for as long as one looks."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"], "says": {"prefill_w0": REFUSAL}})
    said: list[str] = []
    clock, number = ClockAfter(said, "prefill 1 of 2, backend 1 of 1"), count()

    def looked_at() -> float:
        for log in (trial.attempt / "logs").glob("*prefill_w0.out"):
            with log.open("a") as file:
                file.write(f"12:00:{next(number):02} waiting for rank 3\n" * 20)
        return clock()

    with deployed(trial) as deployment, pytest.raises(AttemptFailed) as failed:
        bring_up(deployment, ProgressDeadline(900.0, 3600.0, looked_at), said.append)
    assert failed.value.cause == "configuration"
    assert "max_num_tokenz" in str(failed.value)
    assert clock() < 60
    assert_nothing_left(trial)


@pytest.mark.slow
def test_a_worker_that_repeats_itself_is_hung(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"]})
    said: list[str] = []
    clock, number = ClockAfter(said, "prefill 1 of 2, backend 1 of 1"), count()

    def looked_at() -> float:
        for log in (trial.attempt / "logs").glob("*prefill_w0.out"):
            with log.open("a") as file:
                file.write(f"waiting for rank 3 at 0x{next(number):08x}\n")
        return clock()

    with deployed(trial) as deployment, pytest.raises(AttemptFailed, match="nothing moved for 60 s"):
        bring_up(deployment, ProgressDeadline(60.0, 3600.0, looked_at), said.append)
    assert_nothing_left(trial)


@pytest.mark.slow
def test_words_of_a_worker_that_goes_on_are_no_refusal(make_trial: MakeTrial) -> None:
    """Its log grows; what it said becomes evidence only where nothing moves any more."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"], "says": {"prefill_w0": REFUSAL}})
    said: list[str] = []
    clock, layer = ClockAfter(said, "prefill 1 of 2, backend 1 of 1"), count()

    def looked_at() -> float:
        for log in (trial.attempt / "logs").glob("*prefill_w0.out"):
            with log.open("a") as file:
                file.write(f"reading weights of layer {next(layer)}/10000\n")
        return clock()

    with deployed(trial) as deployment, pytest.raises(AttemptFailed, match="not within 120 s") as failed:
        bring_up(deployment, ProgressDeadline(20.0, 120.0, looked_at), said.append)
    assert failed.value.cause == "configuration", "of a deployment that kept everybody waiting to the end"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_occupied_port_is_named_and_nothing_starts(make_trial: MakeTrial) -> None:
    trial = make_trial()
    with socket.create_server(("127.0.0.1", trial.ports["prefill_w1"])):
        code, _ = trial.run()
    assert code == 3
    assert f"stack.prefill_w1_port={trial.ports['prefill_w1']} for prefill_w1" in (trial.record.error or "")
    assert not (trial.attempt / "logs").exists()
    assert_nothing_left(trial)


@pytest.mark.slow
def test_missing_program_is_named(make_trial: MakeTrial) -> None:
    trial = make_trial()
    path = trial.folder.plan / "processes.json"
    path.write_text(path.read_text().replace(sys.executable, "no-such-program"))
    assert trial.run()[0] == 3
    assert "etcd could not be started: 'no-such-program'" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_folder_that_pyxis_would_split_is_refused(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "a:b")
    path = trial.folder.plan / "processes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"container": ["--container-image=x"]}))
    assert trial.run()[0] == 3
    assert "a colon or comma in the path" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_damaged_plan_is_recorded(make_trial: MakeTrial) -> None:
    trial = make_trial()
    (trial.folder.plan / "processes.json").write_text("{")
    assert trial.run()[0] == 3
    assert "not a readable plan" in (trial.record.error or "")
