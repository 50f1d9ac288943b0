"""Define the interface of backends: run attempts of trials, and declare capabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from tune.backends.activity import Activity
from tune.records.outcome import Probe
from tune.spec.backend_kinds import Capabilities
from tune.spec.trial import TrialSpec

AttemptState = Literal["waiting", "running", "ended"]

DEFAULT_POLL_INTERVAL_S = 0.01
"""Pause between two rounds of `poll` where polling costs next to nothing, in seconds."""


class Backend(Protocol):
    """Run attempts of trials, each in a folder of its own.

    An attempt that ended leaves `attempt.json` (AttemptRecord) in its folder, and one folder of raw records a
    probe. An attempt that ended without `attempt.json` was lost: the infrastructure failed, not the
    configuration.
    """

    capabilities: Capabilities

    poll_interval_s: float = DEFAULT_POLL_INTERVAL_S
    """Pause that callers make between two rounds of `poll`, in seconds."""

    idle_s: float = 0.0
    """Time for which the GPUs of an attempt may stay held after its record, in seconds: while its processes
    are ended, and while its allocation waits for the next attempt. The attempt's held.json says how long."""

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Start an attempt of `spec` in the folder `attempt`; return the handle that names it."""

    def poll(self, handle: str) -> AttemptState:
        """Return the state of the attempt; advance what waits."""

    def cancel(self, handle: str) -> None:
        """Stop an attempt that waits or runs. Cancelling an ended one does nothing."""

    def probes(self, handle: str) -> Sequence[Probe] | None:
        """Return the probes of an ended attempt, where the backend has measured them already.

        Returns None where the caller has to measure the attempt's raw records with `measure_attempt`; raises
        the errors of `measure_attempt`.
        """
        return None

    def activities(self, handle: str) -> Sequence[Activity]:
        """Return the steps that the attempt has begun or ended since the last call; none where not known."""
        return ()

    def resume(self, attempt: Path) -> str | None:
        """Return the handle of an attempt that another process submitted, even if it ended meanwhile.

        Returns None where no process had begun to submit it, and always where attempts are not detached.
        """
        return None

    def announce_interrupt(self) -> None:
        """Print, after a first Ctrl-C, the attempts still waited for and the effect of a second Ctrl-C."""
        return

    def __enter__(self) -> Self:
        """Start to use the backend."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release all resources on this machine; no process is left running here."""


class DetachedJob(Protocol):
    """Describe one job that works for a study without this process."""

    @property
    def unfinished_attempts(self) -> tuple[Path, ...]:
        """Return the folders of the attempts that have not ended."""

    @property
    def text(self) -> str:
        """Return id, state and trials, for a terminal."""


class JobControl(Protocol):
    """Observe and cancel the jobs of a study on a detached backend, from any process."""

    def pending(self, study: Path) -> Sequence[DetachedJob]:
        """Return the jobs of the study in the folder `study` with unfinished attempts, the earliest first."""

    def cancel(self, study: Path, trial_id: str | None) -> Sequence[DetachedJob]:
        """Cancel the jobs of the study, or those with unfinished attempts of one trial.

        Returns the cancelled jobs. Raises ResumableError where the scheduler refuses, or does not list the
        jobs.
        """

    def job_log(self, attempt: Path) -> Path | None:
        """Return the log of the job that runs `attempt`; None where there is none yet."""

    def watch(self, study: Path, attempt: Path, say: Callable[[str], None]) -> Callable[[], bool]:
        """Return a function that says whether `attempt` has ended or its job is gone.

        `say` receives one line for each change of the job's state.
        """
