"""Describe failures that end an attempt before its probe is done, and classify their cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tune.core.log_text import plain_text
from tune.errors import TuneError

FailureCause = Literal["configuration", "infrastructure"]

_TAIL_BYTES = 1 << 18
_LAST_LINES = 12


class AttemptFailed(TuneError):
    """Report the end of an attempt. `cause`: its configuration is wrong, or the infrastructure is.

    After an infrastructure failure another attempt may succeed.
    """

    def __init__(self, message: str, cause: FailureCause = "infrastructure") -> None:
        super().__init__(message)
        self.cause = cause


class AllocationRevoked(TuneError):
    """Report that the scheduler takes the nodes away, which ends this attempt and all after it."""


def last_lines(log: Path) -> str:
    """Return the end of a log for a message, indented, or a remark that there is nothing."""
    lines = _tail(log).splitlines()[-_LAST_LINES:]
    shown = "\n".join(f"  | {line[:400]}" for line in lines) or "  | (nothing)"
    return f"  {log}:\n{shown}"


def classify_failure(log: Path, patterns: Sequence[str]) -> FailureCause:
    """Classify a failure by the end of an engine's log: its configuration if one of `patterns` matches."""
    tail = _tail(log)
    blamed = any(re.search(pattern, tail) for pattern in patterns)
    return "configuration" if blamed else "infrastructure"


def _tail(log: Path) -> str:
    """Return the end of a log as plain text, empty where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return plain_text(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""
