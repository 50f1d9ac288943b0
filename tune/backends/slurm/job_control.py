"""Observe and cancel the Slurm jobs of a study from any process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tune.backends.base import JobControl
from tune.backends.slurm.allocation import allocation_of
from tune.backends.slurm.job_monitor import JobMonitor
from tune.backends.slurm.pending_jobs import PendingJob, cancel_jobs, pending_jobs
from tune.records.folders import has_ended, trial_of


class SlurmJobControl(JobControl):
    """Find the jobs of a study from the records in its folder and from Slurm."""

    def pending(self, study: Path) -> Sequence[PendingJob]:
        """Return the jobs with unfinished attempts, the earliest first."""
        return pending_jobs(study)

    def cancel(self, study: Path, trial_id: str | None) -> Sequence[PendingJob]:
        """Cancel the jobs that wait or run, or those of one trial. Raises ResumableError if Slurm refuses."""
        return cancel_jobs(study, trial_id)

    def job_log(self, attempt: Path) -> Path | None:
        """Return the log of the batch step of the attempt's allocation; None before the step began."""
        allocation = allocation_of(attempt)
        return allocation.log() if allocation else None

    def watch(self, study: Path, attempt: Path, say: Callable[[str], None]) -> Callable[[], bool]:
        """Return a function that says whether the attempt has left its record or its job has ended."""
        monitor = JobMonitor(say)
        job = next(
            (job for job in pending_jobs(study) if attempt.absolute() in job.unfinished_attempts), None
        )
        if job and job.job_id:
            label = f"trial {trial_of(attempt).root.name}"
            monitor.follow(job.job_id, label, job.allocation.submitted_after())

        def ended() -> bool:
            """Ask Slurm, at most every few seconds."""
            if has_ended(attempt) or job is None or job.job_id is None:
                return True
            monitor.refresh()
            return monitor.info(job.job_id).phase == "ended"

        return ended
