"""Hold the adapter of vLLM to what real workers wrote (data/vllm/README.md)."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.vllm_trials import SEEN, vllm_settings

from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS, VLLM_METRICS
from tune.engines.dynamo_vllm.adapter import DynamoVllm
from tune.engines.dynamo_vllm.iteration_log import read_iterations
from tune.engines.dynamo_vllm.worker_signals import FAILURE_RULES
from tune.orchestrator.failures import log_evidence
from tune.records.scrapes import parse_samples, total

REFUSALS = (*("unknown_argument", "wrong_choice", "too_few_gpus", "chunk_too_small", "kv_cache_too_small"),)
OTHERS = ("memory_taken", "engine_killed", "no_model_folder", "prefill_start", "decode_start")


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_start_is_the_configurations_fault(name: str) -> None:
    evidence = log_evidence(SEEN / f"{name}.log", FAILURE_RULES, SEEN)
    assert evidence
    assert evidence.cause == "configuration"
    assert evidence.file == f"{name}.log"


@pytest.mark.parametrize("name", OTHERS)
def test_another_end_and_a_log_of_work_are_not(name: str) -> None:
    evidence = log_evidence(SEEN / f"{name}.log", FAILURE_RULES, SEEN)
    assert evidence is None or evidence.cause == "infrastructure"


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_metrics_are_there_under_their_names(role: str) -> None:
    samples = parse_samples((SEEN / f"{role}_metrics.txt").read_text(encoding="utf-8"))
    assert total(samples, REQUESTS.name, **REQUESTS.labels) == 829
    assert total(samples, IN_FLIGHT.name, **IN_FLIGHT.labels) == 0
    for name in (*VLLM_METRICS.running, *VLLM_METRICS.kv_used):
        assert total(samples, name) == 0


def test_a_frontend_counts_what_it_has_not_answered() -> None:
    samples = parse_samples((SEEN / "frontend_metrics.txt").read_text(encoding="utf-8"))
    assert total(samples, FRONTEND_IN_FLIGHT.name) == 0


def test_kv_cache_is_estimated_to_one_percent() -> None:
    """The run had a vocabulary of 32,770 tokens: 1.56 GB less of embeddings in 16 bits, twice."""
    fewer = 2 * 2 * (128256 - 32770) * 8192
    settings = vllm_settings("model.vocabulary_size=32770", f"model.checkpoint_bytes={45.27e9 - fewer}")
    log = (SEEN / "decode_start.log").read_text(encoding="utf-8")
    found = re.search(r"GPU KV cache size: ([\d,]+) tokens", log)
    assert found
    measured = int(found[1].replace(",", ""))
    capacity = DynamoVllm().kv_capacity_tokens(settings.model, settings.hardware, settings.decode)
    assert capacity == pytest.approx(measured, rel=0.01)


def test_as_many_graphs_are_expected_as_were_captured() -> None:
    """The progress bar of the capture counted to 51, with 256 sequences and 8,192 tokens a step."""
    assert len(vllm_settings().decode.captured_graph_sizes) == 51


def test_step_times_are_read_from_the_log_of_a_worker() -> None:
    lines = (SEEN / "decode_start.log").read_text(encoding="utf-8").splitlines()
    steps = list(read_iterations(lines))
    assert len(steps) == 13
    assert steps[0] == (1, 1, 0, 0, pytest.approx(0.00004))
    assert steps[1] == (0, 0, 1, 1, pytest.approx(0.00742))


@pytest.mark.slow
def test_a_command_prints_them_as_csv(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tune.engines.dynamo_vllm"]
    done = subprocess.run([*command, SEEN / "prefill_start.log"], capture_output=True, text=True, check=True)
    header, *rows = csv.reader(done.stdout.splitlines())
    assert header[-1] == "elapsed_s"
    assert len(rows) == 13
    missing = subprocess.run([*command, tmp_path / "no"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "expected the log of a worker" in missing.stderr
