"""Describe how attempts of a trial failed: the class, the evidence and the next step."""

from __future__ import annotations

from tune.records.outcome import Attempt, Outcome
from tune.spec.failure import FailureCause

CLASS_MEANING: dict[FailureCause, str] = {
    "configuration": "the configuration is wrong: the search learns from it, and it is never tried again",
    "infrastructure": "a node, the network, the file system or the scheduler: the search learns nothing",
    "harness": "what every trial needs is at fault (tune, its client, the checkpoint, a disk, credentials): "
    "the study stops",
}
MEASUREMENT_MEANING = "the deployment ran, and what was measured cannot be trusted: it counts for nothing"

_NEXT_STEP: dict[FailureCause, str] = {
    "configuration": "Read the reason, which quotes the engine's log, and change the named settings.",
    "infrastructure": "Read the logs (action=logs); the same command runs the trial again.",
    "harness": "Read the reason; fix the cause and run the same command again.",
}


def failure_lines(outcome: Outcome) -> list[str]:
    """Return the class of each failed attempt, with its evidence and what to do; empty where none failed.

    A measurement that is not valid is a class of its own, without evidence in a log.
    """
    lines = [line for number, attempt in enumerate(outcome.attempts, 1) for line in _lines(number, attempt)]
    if outcome.status == "measured" and not outcome.valid and not outcome.capacity_qps.stopped_early:
        lines += [f"class     measurement: {MEASUREMENT_MEANING}", f"next      {_after_invalid(outcome)}"]
    return lines


def _lines(number: int, attempt: Attempt) -> list[str]:
    """Return the class, the evidence and the next step of one failed attempt."""
    cause, evidence = attempt.cause, attempt.evidence
    if cause is None:
        return []
    lines = [f"class     {cause}, attempt {number}: {CLASS_MEANING[cause]}"]
    if evidence:
        place = f"{evidence.file}:{evidence.line}" if evidence.file else "its message"
        lines += [f"evidence  {evidence.meaning} ({evidence.rule})", f"          {place}: {evidence.text}"]
    else:
        lines.append("evidence  no line of a log that a rule knows; see the reason")
    lines.append(f"next      {evidence.next_step if evidence else _NEXT_STEP[cause]}")
    return lines


def _after_invalid(outcome: Outcome) -> str:
    """Return what to do about a measurement that is not valid."""
    if any(probe.may_pass for probe in outcome.probes):
        return "It may pass: rerun=true measures the trial again."
    return "Another run gives the same: change what the reason names."
