"""The orchestrator of a Slurm job: its batch step, on the first node of the job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tune.orchestrator.supervision.supervisor import run_supervised

_NOT_OURS, _INTERRUPTED = 3, 130
_BY_SIGNAL = 128


def run_allocation(folder: str) -> int:
    """Run the attempts in the inbox of the allocation `folder` in this Slurm job; the last one's exit code.

    How it goes on and ends: tune.orchestrator.slurm.allocation_loop.iter_queue.
    """
    job = Path(folder).absolute()
    if not _is_ours(job):
        say(f"{job} belongs to another Slurm job; nothing to do")
        return _NOT_OURS
    return _in_job(lambda scratch: _run_inbox(job, scratch), job)


def run_single_attempt(attempt: Path) -> int:
    """Run the attempt in the folder `attempt` in this Slurm job; its exit code."""
    attempt.mkdir(parents=True, exist_ok=True)
    return _in_job(lambda scratch: _run_one(attempt, scratch), attempt)


def say(line: str) -> None:
    with suppress(BrokenPipeError):  # whoever listened is gone; the attempt goes on
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _in_job(work: Callable[[Path], int], folder: Path) -> int:
    """As `guarded`; Slurm sends the signals, and ends what does not stop in time."""
    try:
        code = run_supervised(work, None, patient=True)
    finally:
        shutil.rmtree(_shared(folder), ignore_errors=True)
    if code > _BY_SIGNAL and code != _INTERRUPTED:
        name = signal.Signals(code - _BY_SIGNAL).name
        say(f"the orchestrator was ended by {name} and left no record of its attempt")
    return code


def _shared(folder: Path) -> Path:
    """The scratch folder that every node sees."""
    return folder / "scratch"


def _is_ours(job: Path) -> bool:
    """A killed driver may have submitted twice for a folder; its record names the job that counts.

    Where there is none, or it is damaged, this one does.
    """
    try:
        known = json.loads((job / "job.json").read_text())["job_id"]
    except (FileNotFoundError, ValueError):
        return True
    return known in {None, os.environ.get("SLURM_JOB_ID")}


# Imported by the child alone: what a guardian holds for hours is small.


def _run_inbox(folder: Path, temporary: Path) -> int:
    from tune.orchestrator.slurm.allocation_loop import iter_queue, run_attempts  # noqa: PLC0415
    from tune.orchestrator.slurm.job import current_job  # noqa: PLC0415
    from tune.orchestrator.slurm.srun import SrunLauncher  # noqa: PLC0415

    job = current_job(os.environ)
    steps = SrunLauncher(job, _made(_shared(folder)), temporary)
    return run_attempts(iter_queue(folder, job.left_s, say), job.nodes, steps, say, last=False)


def _run_one(attempt: Path, temporary: Path) -> int:
    from tune.orchestrator.slurm.allocation_loop import run_attempts  # noqa: PLC0415
    from tune.orchestrator.slurm.job import current_job  # noqa: PLC0415
    from tune.orchestrator.slurm.srun import SrunLauncher  # noqa: PLC0415

    job = current_job(os.environ)
    steps = SrunLauncher(job, _made(_shared(attempt)), temporary)
    return run_attempts([attempt], job.nodes, steps, say, last=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
