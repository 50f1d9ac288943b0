"""Slurm's programs as a caller meets them: what they print, or the words with which they refuse."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from tune.backends.slurm.job_states import (
    GONE,
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    UNKNOWN,
    JobInfo,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
"""What the driver and its jobs cannot do without; sacct is asked where it answers."""

_ANSWER_S = 60.0
"""A busy controller answers within MessageTimeout, 10 s, and its clients try again. Source: slurm.conf(5)."""

_OWN = (
    *("SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT"),
    *("SLURM_ARRAY_", "TMPDIR"),
)


class SlurmUnavailable(Exception):
    """A program is missing, failed or took too long; the words are its own, or say which of these."""


def environment() -> dict[str, str]:
    """That of this process without a user's own options, filters and formats: SBATCH_* stand above the
    directives of a job, SQUEUE_* and the like change what is printed. Nor with the array that this process
    may be a task of: a job inherits that, and submitit would take it for the job's own id; nor with this
    machine's folder for temporary files, which need not be on a node."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


def run_command(argv: Sequence[str], stdin: str | None = None) -> tuple[str, str]:
    """(stdout, stderr) of one of Slurm's programs. Raises SlurmUnavailable.

    It runs in `environment`, and Ctrl-C on the terminal does not reach it.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_S,
            env=environment() | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"},
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmUnavailable(f"no {argv[0]} on the PATH") from error
    except OSError as error:
        raise SlurmUnavailable(f"{argv[0]} could not be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmUnavailable(f"{argv[0]} did not answer within {_ANSWER_S:.0f} s") from error
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or "nothing"
        raise SlurmUnavailable(f"{argv[0]} ended with exit code {done.returncode} and said: {words}")
    return done.stdout, done.stderr


def queued_jobs() -> dict[str, JobInfo]:
    """By id, every job of this user that the controller remembers, also ended ones. Raises SlurmUnavailable."""
    asked = ("--noheader", "--states=all", f"--user={os.getuid()}", f"--format={SQUEUE_FORMAT}")
    return parse_squeue(run_command(("squeue", *asked))[0])


def accounted_jobs(job_ids: Sequence[str]) -> Mapping[str, JobInfo]:
    """By id, what the accounting has of these jobs. Raises SlurmUnavailable where there is none."""
    asked = ("--noheader", "--parsable2", "--allocations", f"--format={SACCT_FORMAT}")
    return parse_sacct(run_command(("sacct", *asked, f"--jobs={','.join(job_ids)}"))[0])


def show_job(job_id: str) -> JobInfo:
    """What the controller has of one job: GONE where it knows none of that id. Raises SlurmUnavailable."""
    try:
        return parse_scontrol(run_command(("scontrol", "--oneliner", "show", "job", job_id))[0])
    except SlurmUnavailable as error:
        if "Invalid job id" in str(error):
            return JobInfo(GONE)
        raise


def last_known(job_id: str) -> JobInfo:
    """All that Slurm still has of one job: of its controller, and where that knows it no more, or does not
    answer, of its accounting.

    The controller says more: which node failed, and the exit code of a job of which the accounting has 0:0.
    GONE where the controller answers and nobody knows more; UNKNOWN where nobody answers.
    """
    try:
        controller = show_job(job_id)
    except SlurmUnavailable:
        controller = UNKNOWN
    if controller.state not in (GONE, UNKNOWN.state):
        return controller
    try:
        account = accounted_jobs([job_id]).get(job_id, UNKNOWN)
    except SlurmUnavailable:
        return controller
    return account if account.phase == "ended" else controller


def unusable_nodes(nodes: str) -> str:
    """Those of `nodes` that are down, for a message; "" where none is or nobody answers."""
    asked = ("--noheader", "--Node", "--states=down", "--format=%N", f"--nodes={nodes}")
    try:
        return ", ".join(dict.fromkeys(run_command(("sinfo", *asked))[0].split()))
    except SlurmUnavailable:
        return ""


def cancel_job(job_id: str) -> None:
    """Raises SlurmUnavailable where Slurm refuses; a job that has ended already is no refusal."""
    try:
        run_command(("scancel", job_id))
    except SlurmUnavailable as error:
        if "Invalid job id" not in str(error) and "already completing or completed" not in str(error):
            raise
