"""A place to run a trial: submit, poll, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from tune.records.outcome import Probe
from tune.spec.trial import TrialSpec

AttemptState = Literal["waiting", "running", "ended"]


class Backend(Protocol):
    """Runs attempts of trials, each in a folder of its own.

    An attempt that ended leaves `attempt.json` (AttemptRecord) in its folder, and one folder of raw records
    a probe. An attempt that ended without `attempt.json` was lost: the world failed, not the point.
    """

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Start an attempt of `spec` in the folder `attempt`; the handle names it from then on."""

    def poll(self, handle: str) -> AttemptState: ...

    def cancel(self, handle: str) -> None:
        """Stop an attempt if it still waits or runs. Cancelling an ended one does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what the place holds on this machine; nothing is left running here."""


@runtime_checkable
class MeasuringBackend(Backend, Protocol):
    """A place that measures where its attempts ran, so that the driver need not."""

    def measured(self, handle: str) -> Sequence[Probe] | None:
        """What `measure_attempt` makes of an ended attempt, raising what it raises; None where the process
        that was to say it is gone."""


@runtime_checkable
class DetachedBackend(Backend, Protocol):
    """A place whose attempts go on when this process ends, and are found again by the next one."""

    poll_s: float
    """How long to leave it alone between two rounds of `poll`."""

    def resume(self, attempt: Path) -> str | None:
        """The handle of an attempt that another process submitted, however far it had come with that; None
        where it had not begun to. One whose allocation ended is polled as `ended`, with its record."""

    def announce(self) -> None:
        """Say that the user pressed Ctrl-C, what is still waited for, and what a second one does."""
