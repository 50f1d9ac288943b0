from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.engines.trtllm.adapter import FAILURE_PATTERNS
from tune.orchestrator.failures import classify_failure, last_lines

CONFIGURATION_ERRORS = [
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of",
    "RuntimeError: [TensorRT-LLM][ERROR] CUDA runtime error in cudaMalloc: cudaErrorMemoryAllocation",
    "pydantic_core._pydantic_core.ValidationError: 2 validation errors for TorchLlmArgs",
]
INFRASTRUCTURE_ERRORS = [
    "",
    "Killed",
    "OSError: [Errno 28] No space left on device",
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed",
    "ValidationError: 1 validation error for ChatCompletionRequest",
    "Failed to connect to etcd: transport error",
    "out of memory: the host killed a process",
]


@pytest.mark.parametrize("line", CONFIGURATION_ERRORS)
def test_engine_error_is_a_configuration_failure(line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("starting\n" * 50 + line + "\n" + "shutting down\n" * 50)
    assert classify_failure(log, FAILURE_PATTERNS) == "configuration"


@pytest.mark.parametrize("line", INFRASTRUCTURE_ERRORS)
def test_other_error_is_an_infrastructure_failure(line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"starting\n{line}\n")
    assert classify_failure(log, FAILURE_PATTERNS) == "infrastructure"


def test_missing_log_is_an_infrastructure_failure(tmp_path: Path) -> None:
    assert classify_failure(tmp_path / "none", FAILURE_PATTERNS) == "infrastructure"
    assert "(nothing)" in last_lines(tmp_path / "none")


@given(st.binary(max_size=3000))
def test_any_bytes_of_a_log_can_be_shown(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    log.write_bytes(data)
    shown = last_lines(log).split("\n")
    assert len(shown) <= 13
    assert all(len(line) < 500 for line in shown[1:])


def test_colours_hide_no_error_and_reach_no_message(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\x1b[2J\x1b[31mtorch.OutOfMemoryError\x1b[0m: CUDA out\x1b[1m of\x1b[0m memory\n")
    assert classify_failure(log, FAILURE_PATTERNS) == "configuration"
    assert last_lines(log).endswith("  | torch.OutOfMemoryError: CUDA out of memory")
