"""Describe the steps of a running attempt, for a terminal that waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Verdict = Literal["held", "missed", "invalid"]
"""How a probe ended: its SLO held or not, or its measurement is invalid."""

VERDICTS: Mapping[bool | None, Verdict] = {True: "held", False: "missed", None: "invalid"}
"""Verdicts by `slo_held` of a ProbeVerdict."""


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
        Rate of the probe, queries/s.
    full
        Whether the probe is a full run; else a short run.
    verdict
        How the probe ended; None while it runs.
    """

    stage: Literal["forecast", "probe", "shuffle"]
    number: int
    total: int | None = None
    target_qps: float = 0.0
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
        return f"probe {self.number}: {length} at {self.target_qps:g} queries/s {self.verdict or ''}".rstrip()
