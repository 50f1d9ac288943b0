"""What ends an attempt before its probe is done, and whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tune.errors import TuneError

FailureCause = Literal["configuration", "infrastructure"]

_TAIL_BYTES = 1 << 18
_LAST_LINES = 12


class AttemptFailed(TuneError):
    """The attempt is over. `cause`: the point is wrong, or the world is and another attempt may succeed."""

    def __init__(self, message: str, cause: FailureCause = "infrastructure") -> None:
        super().__init__(message)
        self.cause = cause


class AllocationRevoked(AttemptFailed):
    """Whoever lent the nodes takes them back: this attempt is over, and so are those that would follow."""


def last_lines(log: Path) -> str:
    """The end of a log for a message, indented; says so where there is nothing."""
    lines = _tail(log).splitlines()[-_LAST_LINES:]
    shown = "\n".join(f"  | {line[:400]}" for line in lines) or "  | (nothing)"
    return f"  {log}:\n{shown}"


def classify_failure(log: Path, patterns: Sequence[str]) -> FailureCause:
    """Return what the end of an engine's log blames: its configuration where one of `patterns` matches."""
    tail = _tail(log)
    blamed = any(re.search(pattern, tail) for pattern in patterns)
    return "configuration" if blamed else "infrastructure"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
