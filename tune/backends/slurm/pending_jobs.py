"""List and cancel the jobs of a study whose attempts have not all ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tune.backends.slurm.allocation import Allocation, allocations
from tune.backends.slurm.commands import SlurmUnavailable, cancel_job, last_known, queued_jobs
from tune.backends.slurm.job_states import UNKNOWN, JobInfo
from tune.errors import ResumableError
from tune.records.folders import has_ended, trial_of


@dataclass(frozen=True)
class PendingJob:
    """Hold a job and its unfinished attempts; `job_id` is None before its submission."""

    allocation: Allocation
    job_id: str | None
    info: JobInfo
    unfinished_attempts: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Return id, state and trials of the job, for a terminal."""
        state = self.info.text
        if self.job_id is None:
            state = "not submitted"
        elif self.info.phase == "ended":
            state += ", not collected"
        elif self.info.advice:
            state += f"; {self.info.advice}"
        names = ", ".join(f"trial {trial_of(attempt).root.name}" for attempt in self.unfinished_attempts)
        return f"job {self.job_id or '-'}  {state}  {names}"


def pending_jobs(study: Path) -> tuple[PendingJob, ...]:
    """Return the jobs of the study in the folder `study` with unfinished attempts, the earliest first.

    Slurm is queried only where there are any; their state is UNKNOWN where it does not answer.
    """
    found = list(_with_unfinished(study))
    if not found:
        return ()
    try:
        listing: Mapping[str, JobInfo] = queued_jobs()
    except SlurmUnavailable:
        listing = {}
    return tuple(_pending(allocation, unfinished, listing) for allocation, unfinished in reversed(found))


def cancel_jobs(study: Path, trial_id: str | None) -> tuple[PendingJob, ...]:
    """Cancel the jobs of the study that wait or run, or those with unfinished attempts of one trial.

    Returns the cancelled jobs. Raises ResumableError where Slurm refuses, or does not say which jobs there
    are.
    """
    jobs = [
        job
        for job in pending_jobs(study)
        if trial_id is None
        or trial_id in {trial_of(attempt).root.name for attempt in job.unfinished_attempts}
    ]
    unknown = [job.job_id for job in jobs if job.job_id and job.info.phase == "unknown"]
    if unknown:
        raise ResumableError(
            f"Slurm does not say what became of job {', '.join(unknown)}; nothing was cancelled."
        )
    alive = tuple(job for job in jobs if job.job_id and job.info.phase in ("waiting", "running"))
    for job in alive:
        assert job.job_id is not None
        try:
            cancel_job(job.job_id)
        except SlurmUnavailable as error:
            raise ResumableError(f"Job {job.job_id} may still run: {error}") from error
    return alive


def _with_unfinished(study: Path) -> Iterator[tuple[Allocation, tuple[Path, ...]]]:
    """Yield allocations with unfinished attempts, the latest first.

    An attempt counts for its latest allocation.
    """
    seen: set[Path] = set()
    for allocation in allocations(study):
        attempts = allocation.attempts()
        unfinished = tuple(attempt for attempt in attempts if attempt not in seen and not has_ended(attempt))
        seen.update(attempts)
        if unfinished:
            yield allocation, unfinished


def _pending(
    allocation: Allocation, unfinished: tuple[Path, ...], listing: Mapping[str, JobInfo]
) -> PendingJob:
    """Return the job of an allocation, found by its record, by its comment in `listing`, or by its files."""
    record = allocation.read()
    commented = (job_id for job_id, info in listing.items() if info.comment == allocation.comment)
    job_id = (record.job_id if record else None) or next(commented, None) or allocation.traces()
    if job_id is None:
        return PendingJob(allocation, None, UNKNOWN, unfinished)
    info = listing.get(job_id) or last_known(job_id, allocation.submitted_after())
    return PendingJob(allocation, job_id, info, unfinished)
