"""The jobs of a study that have not delivered yet, for whoever looks at it from outside."""

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
    """A job and the attempts that it still owes. `job_id` is None for one that was not submitted yet."""

    allocation: Allocation
    job_id: str | None
    info: JobInfo
    owed: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Id, Slurm's state and trials, for a terminal."""
        state = self.info.text
        if self.job_id is None:
            state = "not submitted"
        elif self.info.phase == "ended":
            state += ", not collected"
        names = ", ".join(f"trial {trial_of(attempt).root.name}" for attempt in self.owed)
        return f"job {self.job_id or '-'}  {state}  {names}"


def pending_jobs(study: Path) -> tuple[PendingJob, ...]:
    """Jobs of the study in the folder `study` that owe an attempt, the earliest first.

    Slurm is asked only where there are any; their state is UNKNOWN where it does not answer.
    """
    owing = list(_owing(study))
    if not owing:
        return ()
    try:
        listing: Mapping[str, JobInfo] = queued_jobs()
    except SlurmUnavailable:
        listing = {}
    return tuple(_live(allocation, owed, listing) for allocation, owed in reversed(owing))


def cancel_jobs(study: Path, trial_id: str | None) -> tuple[PendingJob, ...]:
    """Cancel the jobs of the study that wait or run, or those of them that owe an attempt of one trial.

    Raises ResumableError where Slurm does not do it, or does not say whether there are any.
    """
    jobs = [
        job
        for job in pending_jobs(study)
        if trial_id is None or trial_id in {trial_of(attempt).root.name for attempt in job.owed}
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


def _owing(study: Path) -> Iterator[tuple[Allocation, tuple[Path, ...]]]:
    """The latest first. An attempt that was passed on to a later allocation is owed by that one."""
    seen: set[Path] = set()
    for allocation in allocations(study):
        attempts = allocation.attempts()
        owed = tuple(attempt for attempt in attempts if attempt not in seen and not has_ended(attempt))
        seen.update(attempts)
        if owed:
            yield allocation, owed


def _live(allocation: Allocation, owed: tuple[Path, ...], listing: Mapping[str, JobInfo]) -> PendingJob:
    record = allocation.read()
    commented = (job_id for job_id, info in listing.items() if info.comment == allocation.comment)
    job_id = (record.job_id if record else None) or next(commented, None) or allocation.traces()
    if job_id is None:
        return PendingJob(allocation, None, UNKNOWN, owed)
    return PendingJob(allocation, job_id, listing.get(job_id) or last_known(job_id), owed)
