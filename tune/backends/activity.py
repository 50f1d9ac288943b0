"""Describe the steps of a running attempt, for a terminal that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from tune.spec.load import load_text

Verdict = Literal["held", "missed", "no verdict"]
"""How a probe ended: its SLO held or not, or it is too short for a verdict or invalid."""

VERDICTS: Mapping[bool | None, Verdict] = {True: "held", False: "missed", None: "no verdict"}
"""Verdicts by `slo_met` of a ProbeVerdict."""


class Activity(NamedTuple):
    """Hold one step of a running attempt.

    Attributes
    ----------
    stage
        "forecast": the next rate is computed. "probe": LoadGen runs, or has run where `verdict` is set.
        "shuffle": the full run is repeated in another shuffle.
    number
        Number of the probe, or of the shuffle, from 1 on.
    total
        How many there are; None where only the attempt decides.
    target_qps
        Rate of the probe, queries/s; 0 in a closed loop.
    concurrency
        Users of a closed loop.
    full
        Whether the probe is a full run; else a short run.
    verdict
        How the probe ended; None while it runs.
    """

    stage: Literal["forecast", "probe", "shuffle"]
    number: int
    total: int | None = None
    target_qps: float = 0.0
    concurrency: int | None = None
    full: bool = False
    verdict: Verdict | None = None

    @property
    def text(self) -> str:
        """Return the step in a few words, for a terminal."""
        if self.stage == "forecast":
            return f"computes the rate of probe {self.number}"
        if self.stage == "shuffle":
            return f"shuffle {self.number} of {self.total}"
        length = "full run" if self.full else "short run"
        load = load_text(self.target_qps, self.concurrency)
        return f"probe {self.number}: {length} at {load} {self.verdict or ''}".rstrip()
