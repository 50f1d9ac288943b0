"""Measure how long each phase of an attempt takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from tune.records.attempt_record import Phases

PhaseName = Literal["bring_up_s", "warm_up_s", "probes_s", "drain_s", "search_s"]


class PhaseTimer:
    """Add up the time of each phase; a phase within another one does not count as the other.

    `clock` counts seconds and never jumps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent: dict[PhaseName, float] = {}
        self._phase: PhaseName | None = None
        self._since_s = clock()

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Count the time of the block as the phase `name`."""
        around = self._phase
        self._enter(name)
        try:
            yield
        finally:
            self._enter(around)

    def record(self) -> Phases:
        """Return the time of each phase so far."""
        self._enter(self._phase)
        return Phases.model_validate(self._spent)

    def _enter(self, phase: PhaseName | None) -> None:
        """End the current phase and begin `phase`."""
        now_s = self._clock()
        if self._phase:
            self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now_s - self._since_s
        self._phase, self._since_s = phase, now_s
