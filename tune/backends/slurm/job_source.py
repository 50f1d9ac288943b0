"""Define where the jobs of allocations come from: Slurm's queue, or an allocation that is held already."""

from __future__ import annotations

from typing import Protocol

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.job_states import JobInfo
from tune.spec.trial import TrialSpec


class JobSource(Protocol):
    """Start jobs, each of which works through the queue of one allocation.

    `started` and `second_interrupt` complete messages: what a job is once `start` has returned its id, and
    what a second Ctrl-C does to it.
    """

    started: str
    second_interrupt: str

    def require(self, spec: TrialSpec) -> None:
        """Raise ConfigurationError, with every finding, where a job for `spec` cannot run."""

    def start(self, allocation: Allocation, spec: TrialSpec) -> str | None:
        """Start the job of `allocation`; return its id, or None where that has to be tried again later.

        Raises ConfigurationError where it will never start.
        """

    def info(self, allocation: Allocation, job_id: str) -> JobInfo:
        """Return what is known of the job that works for `allocation`."""

    def cancel(self, allocation: Allocation, job_id: str) -> None:
        """Cancel the job. Raises SlurmUnavailable where Slurm refuses."""

    def close(self) -> None:
        """End what does not go on without this process."""
