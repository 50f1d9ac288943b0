"""Describe what ends an attempt before its probe is done, and classify the cause."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from tune.errors import TuneError

FailureCause = Literal["configuration", "infrastructure"]

_TAIL_BYTES = 1 << 18
_LAST_LINES = 12

_POINT = re.compile(
    r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|validation errors? for (?:TorchLlmArgs|TrtLlmArgs|BaseLlmArgs)"
)
"""What only a configuration can bring an engine to say: GPU memory that does not suffice, engine YAML that is
rejected. Source: PyTorch, torch/cuda (OutOfMemoryError); CUDA, cuda.h and driver_types.h; pydantic's title of
a ValidationError and the classes of TensorRT-LLM's llm_args.py."""


class AttemptFailed(TuneError):
    """Report the end of an attempt. `cause`: its configuration is wrong, or the infrastructure is.

    After an infrastructure failure another attempt may succeed.
    """

    def __init__(self, message: str, cause: FailureCause = "infrastructure") -> None:
        super().__init__(message)
        self.cause = cause


class AllocationRevoked(AttemptFailed):
    """Report that the scheduler takes the nodes away, which ends this attempt and all after it."""


def last_lines(log: Path) -> str:
    """Return the end of a log for a message, indented, or a remark that there is nothing."""
    lines = _tail(log).splitlines()[-_LAST_LINES:]
    shown = "\n".join(f"  | {line[:400]}" for line in lines) or "  | (nothing)"
    return f"  {log}:\n{shown}"


def classify_failure(log: Path) -> FailureCause:
    """Return the cause of an engine's end by its log: infrastructure unless the log shows otherwise."""
    return "configuration" if _POINT.search(_tail(log)) else "infrastructure"


def _tail(log: Path) -> str:
    """Return the end of a log as text, empty where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
