"""What an allocation is to do: JOB/inbox/0001, 0002, ..., an attempt each; JOB/closed: nothing more comes.

JOB is STUDY/jobs/N. An entry holds one line, the attempt's folder relative to STUDY. An attempt that has
begun holds a file `nodes`, the host of each node index a line; one without was not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune.core.files import write_text

_INBOX, _CLOSED, _NODES = "inbox", "closed", "nodes"


def enqueue_attempt(job: Path, attempt: Path) -> None:
    """Put the attempt in the folder `attempt` behind those that are in the inbox of the folder `job`.

    One process posts at a time. Raises ValueError where both do not belong to one study.
    """
    relative = attempt.absolute().relative_to(_study_of(job))
    write_text(job / _INBOX / f"{len(queued_attempts(job)) + 1:04d}", f"{relative}\n")


def queued_attempts(job: Path) -> tuple[Path, ...]:
    """Folders of the attempts that were posted, in order."""
    folder, study = job / _INBOX, _study_of(job)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(study / (folder / name).read_text().strip() for name in names if name.isdecimal())


def close_queue(job: Path) -> None:
    """Nothing more will be posted, or what is will not be taken."""
    write_text(job / _CLOSED, "")


def is_queue_closed(job: Path) -> bool:
    return (job / _CLOSED).exists()


def mark_started(attempt: Path, hosts: Sequence[str]) -> None:
    """Begin an attempt: from now on it is one of the allocation with these `hosts`, by node index."""
    write_text(attempt / _NODES, "".join(f"{host}\n" for host in hosts))


def attempt_hosts(attempt: Path) -> tuple[str, ...]:
    """The hosts that an attempt was taken to, none where it was not."""
    path = attempt / _NODES
    return tuple(path.read_text().split()) if path.exists() else ()


def _study_of(job: Path) -> Path:
    return job.absolute().parents[1]
