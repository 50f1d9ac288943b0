"""Hold the attempts that an allocation is to run: JOB/queue/0001, 0002, ...

JOB is STUDY/jobs/N. An entry holds one line, the attempt's folder relative to STUDY. The file JOB/closed says
that no entry follows. The folder of an attempt that has started holds a file `nodes`: one line with the host
of each node index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune.core.files import write_text

_QUEUE, _CLOSED, _NODES = "queue", "closed", "nodes"


def enqueue_attempt(job: Path, attempt: Path) -> None:
    """Append the attempt in the folder `attempt` to the queue of the folder `job`.

    One process does so at a time. Raises ValueError where both do not belong to one study.
    """
    relative = attempt.absolute().relative_to(_study_of(job))
    write_text(job / _QUEUE / f"{len(queued_attempts(job)) + 1:04d}", f"{relative}\n")


def queued_attempts(job: Path) -> tuple[Path, ...]:
    """Return the folders of all attempts that were enqueued, in order."""
    folder, study = job / _QUEUE, _study_of(job)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(study / (folder / name).read_text().strip() for name in names if name.isdecimal())


def close_queue(job: Path) -> None:
    """Close the queue: nothing follows, or what follows will not be run."""
    write_text(job / _CLOSED, "")


def is_queue_closed(job: Path) -> bool:
    """Return whether the queue of the folder `job` is closed."""
    return (job / _CLOSED).exists()


def mark_started(attempt: Path, hosts: Sequence[str]) -> None:
    """Note that the allocation with these `hosts`, by node index, has started `attempt`."""
    write_text(attempt / _NODES, "".join(f"{host}\n" for host in hosts))


def attempt_hosts(attempt: Path) -> tuple[str, ...]:
    """Return the hosts on which `attempt` was started, none where it was not."""
    path = attempt / _NODES
    return tuple(path.read_text().split()) if path.exists() else ()


def _study_of(job: Path) -> Path:
    """Return the folder of the study that the folder `job` belongs to."""
    return job.absolute().parents[1]
