"""STUDY/jobs/<n>: one allocation, the attempts that it is to run, and what Slurm calls it.

`job.json` is written before sbatch, without an id, and after it, with one: whoever comes back to a study
knows that there may be a job, and its comment finds it. Beside it lie the inbox and what submitit leaves.
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
_JOB_FILE, _NOTICED = "job.json", "end_noticed"


class JobRecord(FrozenModel):
    """`submitted_at`: when sbatch was about to be called, ISO 8601 in UTC."""

    job_id: str | None
    nodes: PositiveInt
    submitted_at: str


@dataclass(frozen=True)
class Allocation:
    """The allocation in `folder`, an absolute path."""

    folder: Path

    @property
    def comment(self) -> str:
        """What its job carries in Slurm: the link from a job back to its folder."""
        return f"tune:{self.folder}"

    @property
    def record_path(self) -> Path:
        return self.folder / _JOB_FILE

    def read(self) -> JobRecord | None:
        """None where nothing was about to be submitted yet, or the record is damaged: then the job is found
        as one is whose id was never written, by its comment or what it left."""
        try:
            return read_record(self.record_path, JobRecord)
        except ResumableError:
            return None

    def write(self, nodes: int, job_id: str | None = None) -> None:
        record = JobRecord(job_id=job_id, nodes=nodes, submitted_at=datetime.now(UTC).isoformat())
        write_text(self.record_path, record.model_dump_json() + "\n")

    def identify(self, job_id: str, nodes: int) -> None:
        """Put on record which job this is; submitit's pickle, which that job reads, is named after it."""
        for pickle in self.folder.glob("*.pkl"):
            if not pickle.stem.endswith(("_submitted", "_result")):
                pickle.rename(self.folder / f"{job_id}_submitted.pkl")
        record = self.read()
        if record is None:
            self.write(nodes, job_id)
        else:
            named = record.model_copy(update={"job_id": job_id})
            write_text(self.record_path, named.model_dump_json() + "\n")

    def noticed_at(self) -> datetime:
        """When somebody first asked this: since then the job is known to have ended, but not when."""
        path = self.folder / _NOTICED
        if not path.exists():
            write_text(path, datetime.now(UTC).isoformat() + "\n")
        return datetime.fromisoformat(path.read_text().strip())

    def traces(self) -> str | None:
        """The id that a job left in the names of its files, None where there are none."""
        names = [path.name for ending in ("submission.sh", "log.out") for path in self._named(ending)]
        return names[0].partition("_")[0] if names else None

    def _named(self, ending: str) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*_{ending}"))

    def log(self) -> Path | None:
        """What the batch step printed, None before it began."""
        return next(iter(self._named("log.out")), None)

    def attempts(self) -> tuple[Path, ...]:
        """Folders of the attempts it was given, in order."""
        return tuple(queued_attempts(self.folder))


def allocations(study: Path) -> Iterator[Allocation]:
    """Every allocation of the study in the folder `study`, the latest first."""
    jobs = study.absolute() / JOBS
    numbers = [int(path.name) for path in jobs.glob("*") if path.name.isdecimal()] if jobs.is_dir() else []
    for number in sorted(numbers, reverse=True):
        found = Allocation(jobs / str(number))
        if found.record_path.exists():
            yield found


def study_of(attempt: Path) -> Path:
    """The study's folder: STUDY/TRIAL/raw/ATTEMPT."""
    return attempt.absolute().parents[2]


def allocation_of(attempt: Path) -> Allocation | None:
    """The latest allocation that `attempt` was given to."""
    wanted = attempt.absolute()
    return next((found for found in allocations(study_of(attempt)) if wanted in found.attempts()), None)


def begin_allocation(attempt: Path, nodes: int, last: bool) -> Allocation:
    """A new allocation that begins with `attempt`, and takes nothing else where that is its `last`."""
    jobs = study_of(attempt) / JOBS
    jobs.mkdir(exist_ok=True)
    taken = [int(path.name) for path in jobs.iterdir() if path.name.isdecimal()]
    begun = Allocation(jobs / str(max(taken, default=0) + 1))
    begun.folder.mkdir()
    begun.write(nodes)
    enqueue_attempt(begun.folder, attempt)
    if last:
        close_queue(begun.folder)
    return begun
