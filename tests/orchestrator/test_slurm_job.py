from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.errors import ConfigurationError, ResumableError
from tune.orchestrator.slurm.job import (
    SlurmJob,
    current_job,
    down_nodes,
    end_reason,
    node_addresses,
    parse_time_left_s,
    reachable,
    srun_steps,
)

SCONTROL_NODES = """\
NodeName=gb01 Arch=aarch64 CoresPerSocket=72 NodeAddr=10.0.0.1 NodeHostName=gb01 OS=Linux 6.8 #1 SMP x=y
NodeName=gb02 Arch=aarch64 Comment=a NodeAddr=b NodeAddr=gb02-ib NodeHostName=gb02 State=IDLE
"""


@given(days=st.integers(0, 400), seconds=st.integers(0, 86_399))
def test_time_left_is_read_in_every_form(days: int, seconds: int) -> None:
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    whole = f"{days}-{hours:02d}:{minutes:02d}:{rest:02d}"
    texts = [whole] if days else [f"{hours}:{minutes:02d}:{rest:02d}", whole.removeprefix("0-")]
    texts += [f"{minutes}:{rest:02d}"] if not (days or hours) else []
    for text in texts:
        assert parse_time_left_s(f"{text}\n") == days * 86_400 + seconds


def test_unlimited_time_is_none() -> None:
    assert parse_time_left_s("UNLIMITED\n") is None


@pytest.mark.parametrize("text", ["", "INVALID", "NOT_SET", "1:2:3:4", "-1:00", "slurm_load_jobs error"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ResumableError, match="time left"):
        parse_time_left_s(text)


def test_addresses_are_those_that_slurm_uses() -> None:
    assert node_addresses(SCONTROL_NODES) == {"gb01": "10.0.0.1", "gb02": "gb02-ib"}
    assert node_addresses("Node gb09 not found\n") == {}


def test_own_loopback_address_is_replaced() -> None:
    own, *others = reachable(["127.0.1.1", "10.0.0.2", "10.0.0.3"])
    assert others == ["10.0.0.2", "10.0.0.3"]
    assert ipaddress.ip_address(own)


@pytest.mark.parametrize("found", [["127.0.1.1"], ["127.0.1.1", "127.0.1.2"], ["10.0.0.1", "10.0.0.2"]])
def test_other_addresses_stay(found: list[str]) -> None:
    assert reachable(found) == tuple(found)


DESCRIBED = "JobId=7 JobName=a JobState={} Reason={} ExitCode=0:0 PreemptTime={} StdOut=/x=y"


@pytest.mark.parametrize(
    ("state", "reason", "preempted", "why"),
    [
        ("RUNNING", "None", "None", None),
        ("RUNNING", "None", "2026-01-02T03:04:05", "preempted at 2026-01-02T03:04:05"),
        ("COMPLETING", "None", "2026-01-02T03:04:05", "preempted at 2026-01-02T03:04:05"),
        ("COMPLETING", "None", "None", "CANCELLED"),
        ("COMPLETING", "NodeDown", "None", "NODE_FAIL"),
        ("COMPLETING", "TimeLimit", "None", "TIMEOUT"),
        ("COMPLETING", "Prolog", "None", "it is COMPLETING"),
        ("CANCELLED", "None", "None", "CANCELLED"),
    ],
)
def test_reason_of_an_ending_job_is_read(state: str, reason: str, preempted: str, why: str | None) -> None:
    assert end_reason(DESCRIBED.format(state, reason, preempted)) == why


def test_only_numbered_steps_count() -> None:
    assert srun_steps("7.0\n7.12\n7.batch\n7.extern\n") == ["7.0", "7.12"]
    assert srun_steps("") == []


def test_down_nodes_are_named_once() -> None:
    assert down_nodes("g07 comp\ng08 down*\ng08 down*\ng09 down\ng10 idle\n\n") == ["g08", "g09"]


def test_missing_job_environment_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no SLURM_JOB_ID and no SLURM_JOB_NODELIST"):
        current_job({})
    assert current_job({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "gb[01-02]"}) == SlurmJob("7", "gb[01-02]")


def test_missing_slurm_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ResumableError, match=r"squeue --noheader --jobs=7"):
        SlurmJob("7", "gb01").time_left_s()
    assert SlurmJob("7", "gb01").revocation() is None
