"""Describe failures that end an attempt before its probe is done, and tell their cause."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import BinaryIO

from tune.core.log_text import plain_text
from tune.errors import ConfigurationError, TuneError
from tune.orchestrator.failure_rules import CONSEQUENCES, HARDWARE, SCHEDULER
from tune.spec.failure import FailureCause, FailureEvidence, FailureRule

_TAIL_BYTES = 1 << 18
_LAST_LINES = 12
_LINE_CHARACTERS = 400


class AttemptFailed(TuneError):
    """Report the end of an attempt.

    Attributes
    ----------
    cause
        Class of the failure: that of `evidence` where there is some, else what the caller says.
    evidence
        The line that tells the cause, None where none does.
    """

    def __init__(
        self,
        message: str,
        cause: FailureCause = "infrastructure",
        *,
        evidence: FailureEvidence | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = evidence.cause if evidence else cause
        self.evidence = evidence


def explained(error: TuneError) -> AttemptFailed:
    """Return an error as the failure of an attempt, of the class that its words tell.

    Where they tell none, a ConfigurationError is a fault of this host or of the plan, which every trial would
    meet, and any other one of the infrastructure.
    """
    if isinstance(error, AttemptFailed) and error.evidence:
        return error
    message, cause = str(error), _default_cause(error)
    return AttemptFailed(message, cause, evidence=message_evidence(message))


def _default_cause(error: TuneError) -> FailureCause:
    """Return the class of an error whose words tell none."""
    if isinstance(error, AttemptFailed):
        return error.cause
    return "harness" if isinstance(error, ConfigurationError) else "infrastructure"


class AllocationRevoked(TuneError):
    """Report that the scheduler takes the nodes away, which ends this attempt and all after it."""


def last_lines(log: Path) -> str:
    """Return the end of a log for a message, indented, or a remark that there is nothing."""
    return _quoted(log, _tail(log)[0].splitlines()[-_LAST_LINES:])


def lines_from(log: Path, number: int) -> str:
    """Return the lines of a log from one near its end on, as `last_lines` does; the first is line 1."""
    text, first_line = _tail(log)
    start = number - first_line
    return _quoted(f"{log}, from line {number} on", text.splitlines()[start : start + _LAST_LINES])


def _quoted(source: Path | str, lines: Sequence[str]) -> str:
    shown = "\n".join(f"  | {line[:_LINE_CHARACTERS]}" for line in lines) or "  | (nothing)"
    return f"  {source}:\n{shown}"


def log_evidence(log: Path, engine_rules: Sequence[FailureRule], trial: Path) -> FailureEvidence | None:
    """Return the line at the end of a log that tells why its process failed.

    Parameters
    ----------
    log
        Log of the process; the last 256 KiB are read.
    engine_rules
        Rules of the engine; empty for a process that is none of its workers.
    trial
        Folder of the trial, to which the file of the evidence is relative.

    Returns
    -------
    FailureEvidence | None
        The first line that the first matching rule matches, None where no rule does or there is no log.
    """
    text, first_line = _tail(log)
    found = _first_match(text, (*HARDWARE, *engine_rules, *CONSEQUENCES))
    if found is None:
        return None
    return found.model_copy(
        update={"file": str(log.relative_to(trial)), "line": first_line + (found.line or 1) - 1}
    )


def message_evidence(message: str) -> FailureEvidence | None:
    """Return the line of an error message that tells the cause, None where none does."""
    found = _first_match(message, (*HARDWARE, *SCHEDULER, *CONSEQUENCES))
    return found and found.model_copy(update={"line": None})


def _first_match(text: str, rules: Sequence[FailureRule]) -> FailureEvidence | None:
    """Return the first line that the first matching rule matches; `line` counts from 1 in `text`."""
    lines = text.splitlines()
    for rule, (number, line) in product(rules, enumerate(lines, 1)):
        if re.search(rule.pattern, line):
            return FailureEvidence(
                rule=rule.name,
                cause=rule.cause,
                meaning=rule.meaning,
                next_step=rule.next_step,
                text=line.strip()[:_LINE_CHARACTERS],
                line=number,
                repeats=rule.repeats,
            )
    return None


def _tail(log: Path) -> tuple[str, int]:
    """Return the end of a log as plain text, and the number of its first line; "" if it cannot be read."""
    try:
        with log.open("rb") as file:
            start = max(0, log.stat().st_size - _TAIL_BYTES)
            before = sum(chunk.count(b"\n") for chunk in _chunks(file, start))
            return plain_text(file.read().decode("utf-8", "replace")), before + 1
    except OSError:
        return "", 1


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file in pieces; fewer where it has fewer."""
    while size and (chunk := file.read(min(size, 1 << 20))):
        size -= len(chunk)
        yield chunk
