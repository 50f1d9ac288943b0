"""Record each allocation in STUDY/jobs/<n>: the attempts that it runs, and its job in Slurm.

`job.json` is written before sbatch, without an id, and after it, with one: a later process knows that there
may be a job, and finds it by its comment. Beside it lie the queue of attempts and the files of submitit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tune.core.files import read_record, write_text
from tune.errors import ResumableError
from tune.orchestrator.slurm.work_queue import close_queue, enqueue_attempt, queued_attempts
from tune.spec.base import FrozenModel, PositiveInt

JOBS = "jobs"
"""Folder of a study that holds its allocations."""

_JOB_FILE, _NOTICED = "job.json", "end_noticed"


class JobRecord(FrozenModel):
    """Hold id, size and submission time of a job; `job_id` is None before sbatch returned it.

    `submitted_at` is the time just before sbatch was called, ISO 8601 in UTC.
    """

    job_id: str | None
    nodes: PositiveInt
    submitted_at: str


@dataclass(frozen=True)
class Allocation:
    """Name the allocation in `folder`, an absolute path."""

    folder: Path

    @property
    def comment(self) -> str:
        """Return the comment of its job in Slurm, which leads from a job back to its folder."""
        return f"tune:{self.folder}"

    @property
    def record_path(self) -> Path:
        """Return the path of `job.json`."""
        return self.folder / _JOB_FILE

    def read(self) -> JobRecord | None:
        """Return the record; None where no submission was begun, or the record is damaged.

        A job without a readable record is found by its comment, or by the names of its files.
        """
        try:
            return read_record(self.record_path, JobRecord)
        except ResumableError:
            return None

    def write(self, nodes: int, job_id: str | None = None) -> None:
        """Write the record of a job that is submitted now, or whose record was lost."""
        record = JobRecord(job_id=job_id, nodes=nodes, submitted_at=self._began_at().isoformat())
        write_text(self.record_path, record.model_dump_json() + "\n", durable=True)

    def identify(self, job_id: str, nodes: int) -> None:
        """Put the job's id on record, and name submitit's pickle after it, as the job expects."""
        for pickle in self.folder.glob("*.pkl"):
            if not pickle.stem.endswith(("_submitted", "_result")):
                pickle.rename(self.folder / f"{job_id}_submitted.pkl")
        record = self.read()
        if record is None:
            self.write(nodes, job_id)
        else:
            named = record.model_copy(update={"job_id": job_id})
            write_text(self.record_path, named.model_dump_json() + "\n", durable=True)

    def submitted_after(self) -> datetime:
        """Return a time before sbatch was called, in UTC."""
        record = self.read()
        return datetime.fromisoformat(record.submitted_at) if record else self._began_at()

    def _began_at(self) -> datetime:
        """Return the time of the oldest file, in UTC; now where there is none."""
        written_s = [path.stat().st_mtime for path in self.folder.iterdir()]
        return datetime.fromtimestamp(min(written_s), UTC) if written_s else datetime.now(UTC)

    def noticed_at(self) -> datetime:
        """Return when this was first called: the job is known to have ended by then, but not when."""
        path = self.folder / _NOTICED
        if not path.exists():
            write_text(path, datetime.now(UTC).isoformat() + "\n")
        return datetime.fromisoformat(path.read_text().strip())

    def traces(self) -> str | None:
        """Return the id that a job left in the names of its files; None where there are none."""
        names = [path.name for ending in ("submission.sh", "log.out") for path in self._named(ending)]
        return names[0].partition("_")[0] if names else None

    def _named(self, ending: str) -> list[Path]:
        """Return the files of a job with this ending; their names begin with the job's id."""
        return sorted(self.folder.glob(f"[0-9]*_{ending}"))

    def log(self) -> Path | None:
        """Return the log of the batch step; None before it began."""
        return next(iter(self._named("log.out")), None)

    def attempts(self) -> tuple[Path, ...]:
        """Return the folders of the attempts in its queue, in order."""
        return tuple(queued_attempts(self.folder))


def allocations(study: Path) -> Iterator[Allocation]:
    """Yield every allocation of the study in the folder `study`, the latest first."""
    jobs = study.absolute() / JOBS
    numbers = [int(path.name) for path in jobs.glob("*") if path.name.isdecimal()] if jobs.is_dir() else []
    for number in sorted(numbers, reverse=True):
        allocation = Allocation(jobs / str(number))
        if allocation.record_path.exists():
            yield allocation


def study_of(attempt: Path) -> Path:
    """Return the study's folder of an attempt in STUDY/TRIAL/raw/ATTEMPT."""
    return attempt.absolute().parents[2]


def allocation_of(attempt: Path) -> Allocation | None:
    """Return the latest allocation with `attempt` in its queue; None where there is none."""
    absolute = attempt.absolute()
    return next(
        (allocation for allocation in allocations(study_of(attempt)) if absolute in allocation.attempts()),
        None,
    )


def begin_allocation(attempt: Path, nodes: int, last: bool) -> Allocation:
    """Return a new allocation with `attempt` in its queue, which is closed where that is the `last`."""
    jobs = study_of(attempt) / JOBS
    jobs.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in jobs.iterdir() if path.name.isdecimal()]
    allocation = Allocation(jobs / str(max(numbers, default=0) + 1))
    allocation.folder.mkdir()
    allocation.write(nodes)
    enqueue_attempt(allocation.folder, attempt)
    if last:
        close_queue(allocation.folder)
    return allocation
