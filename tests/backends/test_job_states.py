"""Test the reading of job states in every form in which Slurm's programs print them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.backends.slurm.job_states import (
    JobInfo,
    base_state,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
    phase,
)

STATES = {
    "PENDING": "waiting",
    "REQUEUE_HOLD": "waiting",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "running",
    "COMPLETED": "ended",
    "CANCELLED by 1000": "ended",
    "CANCELLED+": "ended",
    "NODE_FAIL": "ended",
    "OUT_OF_MEMORY": "ended",
    "PREEMPTED": "ended",
    "TIMEOUT": "ended",
    "GONE": "ended",
    "UNKNOWN": "unknown",
    "": "unknown",
    "COMPLETE_SOON": "unknown",
}


@pytest.mark.parametrize(("printed", "meant"), STATES.items())
def test_every_state_has_a_phase(printed: str, meant: str) -> None:
    assert phase(base_state(printed)) == meant


@given(st.text())
def test_unknown_state_has_not_ended(text: str) -> None:
    assert phase(f"X{base_state(text)}X") == "unknown"


WORDS = st.text(st.characters(exclude_characters="|\r\n", codec="ascii", categories=["L", "N", "P"]))


@given(
    st.integers(1, 10**9), st.sampled_from(["PENDING", "RUNNING"]), WORDS, st.text(st.sampled_from("ab |/"))
)
def test_squeue_is_parsed_with_any_comment(number: int, state: str, reason: str, comment: str) -> None:
    line = f"{number}|{state}|{reason}|g[01-18]|1:05|2026-11-23T17:57:56|{comment}"
    (found,) = parse_squeue(f"CLUSTER: one\n{line}\n\n").values()
    assert found == JobInfo(state, reason, "g[01-18]", occupied_s=65.0, comment=comment)


@given(st.text())
def test_any_output_of_a_program_is_parsed(text: str) -> None:
    parse_squeue(text)
    parse_sacct(text)
    parse_scontrol(text)


def test_end_is_of_ended_jobs_only_in_utc() -> None:
    lines = [
        "7|RUNNING|None|g01|0:10|2026-11-23T17:57:56|",
        "8|NODE_FAIL|NodeDown|g01|0:10|2026-11-23T17:57:56|",
        "9|FAILED|None|g01|INVALID|N/A|",
    ]
    found = parse_squeue("\n".join(lines))
    assert found["7"].ended_at is None
    assert found["8"].ended_at == datetime(2026, 11, 23, 17, 57, 56, tzinfo=UTC)
    assert (found["9"].ended_at, found["9"].occupied_s) == (None, None)


def test_sacct_is_parsed_with_the_cancelling_user() -> None:
    text = "12|CANCELLED by 1000|0:15|g[01-04]|83|2026-11-23T17:50:00|2026-11-23T17:57:56\n12.batch|x\n"
    assert set(parse_sacct(text)) == {"12"}
    found = parse_sacct(text)["12"]
    assert (found.state, found.exit_code, found.nodes, found.occupied_s) == (
        "CANCELLED",
        "0:15",
        "g[01-04]",
        83,
    )
    assert found.submitted_at == datetime(2026, 11, 23, 17, 50, tzinfo=UTC)
    waiting = parse_sacct("13|PENDING|0:0|None assigned|0|2026-11-23T17:50:00|Unknown\n")["13"]
    assert (waiting.nodes, waiting.phase) == ("", "waiting")


SCONTROL = (
    "JobId=12 JobName=a b JobState=NODE_FAIL Reason=NodeDown Dependency=(null) FailedNode=g07 ExitCode=0:0 "
    "RunTime=00:01:23 TimeLimit=04:00:00 EndTime=2026-11-23T17:57:56 ReqNodeList=(null) NodeList=g[01-18] "
    "Comment=tune:/runs/JobState=RUNNING NodeList=x"
)


def test_scontrol_is_parsed_without_fields_from_comments() -> None:
    found = parse_scontrol(SCONTROL)
    assert (found.state, found.nodes, found.failed_node, found.occupied_s) == (
        "NODE_FAIL",
        "g[01-18]",
        "g07",
        83,
    )
    assert parse_scontrol("No jobs in the system").phase == "unknown"


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (JobInfo("PENDING", "Resources"), "PENDING (Resources)"),
        (JobInfo("PENDING", "None"), "PENDING"),
        (JobInfo("RUNNING", "None", "g[01-18]"), "RUNNING on g[01-18]"),
        (JobInfo("GONE"), "GONE"),
    ],
)
def test_state_is_shown_with_reason_or_nodes(info: JobInfo, text: str) -> None:
    assert info.text == text


ADVICE = {
    "BadConstraints": "it cannot begin",
    "DependencyNeverSatisfied": "it cannot begin",
    "PartitionTimeLimit": "it cannot begin",
    "PartitionNodeLimit": "it cannot begin",
    "InvalidQOS": "it cannot begin",
    "AccountNotAllowed": "it cannot begin",
    "QOSNotAllowed": "it cannot begin",
    "QOSMaxNodePerJobLimit": "it cannot begin",
    "QOSMaxWallDurationPerJobLimit": "it cannot begin",
    "AssocMaxGRESPerJob": "it cannot begin",
    "QOSMinGRES": "it cannot begin",
    "ReservationDeleted": "it cannot begin",
    "JobHeldUser": "it is held",
    "JobHeldAdmin": "it is held",
    "JobHoldMaxRequeue": "it is held",
    "launch failed requeued held": "it is held",
    "Priority": "",
    "Resources": "",
    "Dependency": "",
    "BeginTime": "",
    "QOSMaxNodePerUserLimit": "",
    "QOSGrpNodeLimit": "",
    "AssocMaxJobsLimit": "",
    "ReqNodeNotAvail, UnavailableNodes:g[01-18]": "",
    "PartitionDown": "",
    "None": "",
}
"""What is said of a job that waits for this reason."""


@pytest.mark.parametrize(("reason", "words"), ADVICE.items())
def test_wait_that_does_not_end_by_itself_has_advice(reason: str, words: str) -> None:
    assert JobInfo("PENDING", reason).advice.startswith(words)
    assert bool(JobInfo("PENDING", reason).advice) == bool(words)
    assert JobInfo("RUNNING", reason).advice == ""


def test_requeued_job_that_is_held_has_advice() -> None:
    assert JobInfo("REQUEUE_HOLD", "None").advice.startswith("it is held")
