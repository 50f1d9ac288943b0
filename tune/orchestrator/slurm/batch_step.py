"""Run the orchestrator of a Slurm job in its batch step, on the first node of the job."""

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

_EXIT_OTHER_JOB, _EXIT_INTERRUPTED = 3, 130
_EXIT_SIGNAL_BASE = 128


def run_allocation(folder: str) -> int:
    """Run the queue of the allocation `folder` in this Slurm job; return the last attempt's exit code.

    tune.orchestrator.slurm.allocation_loop.iter_queue says when it ends.
    """
    job = Path(folder).absolute()
    if not _is_current_job(job):
        print_line(f"{job} belongs to another Slurm job; nothing to do")
        return _EXIT_OTHER_JOB
    return _run_in_job(lambda scratch: _run_queue(job, scratch), job)


def run_single_attempt(attempt: Path) -> int:
    """Run the attempt in the folder `attempt` in this Slurm job; return its exit code."""
    attempt.mkdir(parents=True, exist_ok=True)
    return _run_in_job(lambda scratch: _run_attempt(attempt, scratch), attempt)


def run_node_check(folder: Path) -> int:
    """Report on this node of a Slurm job into `folder`; return the exit code."""
    return _run_in_job(lambda temporary: _report(folder, temporary), folder)


def print_line(line: str) -> None:
    """Print `line` with the time of day on the standard error."""
    with suppress(BrokenPipeError):  # the reader is gone; the attempt goes on
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _run_in_job(work: Callable[[Path], int], folder: Path) -> int:
    """Run `work` supervised and return its exit code; Slurm kills what does not stop in time."""
    try:
        code = run_supervised(work, None, external_kill=True)
    finally:
        shutil.rmtree(_scratch_folder(folder), ignore_errors=True)
    if code > _EXIT_SIGNAL_BASE and code != _EXIT_INTERRUPTED:
        name = signal.Signals(code - _EXIT_SIGNAL_BASE).name
        print_line(f"the orchestrator was ended by {name} and left no record of its attempt")
    return code


def _scratch_folder(folder: Path) -> Path:
    """Return the scratch folder that every node sees."""
    return folder / "scratch"


def _is_current_job(job: Path) -> bool:
    """Return whether this is the job on record: a killed driver may have submitted twice for a folder.

    Without a record, or with a damaged one, it is this job.
    """
    try:
        recorded_id = json.loads((job / "job.json").read_text())["job_id"]
    except (FileNotFoundError, ValueError):
        return True
    return recorded_id in {None, os.environ.get("SLURM_JOB_ID")}


# The child alone imports these: the supervisor, which lives for hours, stays small.


def _run_queue(folder: Path, temporary: Path) -> int:
    """Run the attempts of the queue in the folder `folder`; return the last one's exit code."""
    from tune.orchestrator.slurm.allocation_loop import iter_queue, run_attempts  # noqa: PLC0415
    from tune.orchestrator.slurm.job import current_job  # noqa: PLC0415
    from tune.orchestrator.slurm.srun import SrunLauncher  # noqa: PLC0415

    job = current_job(os.environ)
    launcher = SrunLauncher(job, _make_folder(_scratch_folder(folder)), temporary)
    return run_attempts(
        iter_queue(folder, job.time_left_s, print_line), job.nodes, launcher, print_line, last=False
    )


def _run_attempt(attempt: Path, temporary: Path) -> int:
    """Run the attempt in the folder `attempt`; return its exit code."""
    from tune.orchestrator.slurm.allocation_loop import run_attempts  # noqa: PLC0415
    from tune.orchestrator.slurm.job import current_job  # noqa: PLC0415
    from tune.orchestrator.slurm.srun import SrunLauncher  # noqa: PLC0415

    job = current_job(os.environ)
    launcher = SrunLauncher(job, _make_folder(_scratch_folder(attempt)), temporary)
    return run_attempts([attempt], job.nodes, launcher, print_line, last=True)


def _report(folder: Path, temporary: Path) -> int:
    """Report on this node into `folder`."""
    from tune.orchestrator.slurm.node_check import report_on_node  # noqa: PLC0415

    return report_on_node(folder, temporary, print_line)


def _make_folder(folder: Path) -> Path:
    """Make `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
