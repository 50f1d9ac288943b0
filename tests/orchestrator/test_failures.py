from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.engines.dynamo_vllm.worker_signals import FAILURE_RULES as VLLM_RULES
from tune.engines.trtllm.adapter import FAILURE_RULES
from tune.orchestrator.failure_rules import CONSEQUENCES, HARDWARE, SCHEDULER
from tune.orchestrator.failures import AttemptFailed, last_lines, log_evidence, message_evidence
from tune.records.attempt_limit import AttemptLimit
from tune.spec.failure import FailureEvidence

LINES = [
    line.split("\t", 1)
    for line in (Path(__file__).parents[1] / "data" / "failure_lines.txt").read_text().splitlines()
    if not line.startswith("#")
]
MESSAGES = [
    ("time_limit", "infrastructure", False, "stopped 60 s before the time limit of the job after 7100 s"),
    ("gpu_hours", "infrastructure", False, AttemptLimit(occupied_s=840.0).reason),
    ("preempted", "infrastructure", True, "preempted at 2026-11-30T12:00:00 after 320 s"),
    ("node_failed", "infrastructure", True, "NODE_FAIL, gb07 is down after 320 s"),
    (
        "node_failed",
        "infrastructure",
        True,
        "lost: job 12 ended as NODE_FAIL, on gb[01-18], node gb07 is down",
    ),
    ("cancelled", "infrastructure", False, "CANCELLED after 12 s"),
    ("disk_full", "harness", True, "runs/a/raw/1/attempt.json: cannot be written (No space left on device)"),
    ("port_taken", "infrastructure", True, "Ports of the deployment are taken: stack.etcd_client_port=2379"),
]


def evidence_of(folder: Path, text: str) -> FailureEvidence | None:
    (folder / "raw").mkdir(exist_ok=True)
    log = folder / "raw" / "log"
    log.write_text(text)
    return log_evidence(log, FAILURE_RULES, folder)


@pytest.mark.parametrize(("rule", "line"), LINES)
def test_a_line_is_recognised_and_found_again(rule: str, line: str, tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, "starting\n" * 50 + line + "\n" + "shutting down\n" * 50)
    if rule == "-":
        assert evidence is None
    else:
        assert evidence
        assert (evidence.rule, evidence.file, evidence.line) == (rule, "raw/log", 51)
        assert evidence.text == line


def test_every_rule_has_a_line_a_source_and_a_next_step() -> None:
    shown = {rule for rule, _ in LINES} | {rule for rule, *_ in MESSAGES}
    rules = (*HARDWARE, *CONSEQUENCES, *SCHEDULER, *FAILURE_RULES)
    assert {rule.name for rule in rules} == shown - {"-"}
    for rule in (*rules, *VLLM_RULES):
        assert rule.meaning
        assert rule.source
        assert rule.next_step.endswith(".")


def test_names_of_rules_differ() -> None:
    for engine in (FAILURE_RULES, VLLM_RULES):
        names = [rule.name for rule in (*HARDWARE, *engine, *CONSEQUENCES, *SCHEDULER)]
        assert len(set(names)) == len(names)


def test_a_lost_gpu_explains_what_comes_after_it(tmp_path: Path) -> None:
    lines = dict(LINES)
    evidence = evidence_of(tmp_path, f"{lines['nccl']}\n{lines['gpu_memory']}\n{lines['gpu_lost']}\n")
    assert evidence
    assert (evidence.rule, evidence.line) == ("gpu_lost", 3)


def test_lines_count_from_the_beginning_of_a_long_log(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, "step\n" * 200_000 + "torch.OutOfMemoryError\n")
    assert evidence
    assert evidence.line == 200_001


@pytest.mark.parametrize(("rule", "cause", "repeats", "message"), MESSAGES)
def test_a_message_tells_the_class_by_itself(rule: str, cause: str, repeats: bool, message: str) -> None:
    evidence = message_evidence(message)
    assert evidence
    assert (evidence.rule, evidence.cause, evidence.repeats) == (rule, cause, repeats)
    assert evidence.line is None
    assert AttemptFailed(message, evidence=evidence).cause == cause


def test_a_step_that_was_ended_is_not_taken_for_a_cancelled_job(tmp_path: Path) -> None:
    line = "slurmstepd: error: *** STEP 7.3 ON g01 CANCELLED AT 2026-11-30 ***"
    assert evidence_of(tmp_path, f"{line}\n") is None


def test_missing_log_tells_nothing(tmp_path: Path) -> None:
    assert log_evidence(tmp_path / "none", FAILURE_RULES, tmp_path) is None
    assert "(nothing)" in last_lines(tmp_path / "none")


@given(st.binary(max_size=3000))
def test_any_bytes_of_a_log_can_be_shown(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    log.write_bytes(data)
    log_evidence(log, FAILURE_RULES, log.parent)
    shown = last_lines(log).split("\n")
    assert len(shown) <= 13
    assert all(len(line) < 500 for line in shown[1:])


def test_colours_hide_no_error_and_reach_no_message(tmp_path: Path) -> None:
    evidence = evidence_of(
        tmp_path, "\x1b[2J\x1b[31mtorch.OutOfMemoryError\x1b[0m: CUDA out\x1b[1m of\x1b[0m memory\n"
    )
    assert evidence
    assert evidence.text == "torch.OutOfMemoryError: CUDA out of memory"
    assert last_lines(tmp_path / "raw" / "log").endswith("  | torch.OutOfMemoryError: CUDA out of memory")
