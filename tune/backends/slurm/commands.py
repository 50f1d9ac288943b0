"""Run Slurm's programs: return their output, or raise an error with their message."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

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
"""Programs that the driver and its jobs require; sacct is optional."""

_ANSWER_S = 60.0
"""Time limit on the answer of a program, in seconds. A busy controller answers within
MessageTimeout, 10 s, and its clients try again. Source: slurm.conf(5)."""

_CLOCKS_DIFFER = timedelta(seconds=300)
"""Most by which the clocks of this machine and of the controller differ: with more, MUNGE takes none of their
messages. Source: munge(1), --ttl."""

_OVERRIDING = ("SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_", "SLURM_", "TMPDIR")
"""Prefixes of environment variables that would change what Slurm's programs do or print."""

_WHERE_SLURM_IS = "SLURM_CONF"


class SlurmUnavailable(Exception):
    """Report that a program is missing, failed or did not answer; the message holds its own words, if any."""


def environment() -> dict[str, str]:
    """Return the environment of this process without variables that change jobs or output.

    SBATCH_* override the directives of a job; SQUEUE_* and similar ones change the output. SLURM_* of a job
    in which this process runs would shape the job or step that it starts, and submitit takes
    SLURM_ARRAY_JOB_ID for the job's own id. TMPDIR names a folder of this machine that need not exist on a
    node.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name == _WHERE_SLURM_IS or not name.startswith(_OVERRIDING)
    }


def run_command(argv: Sequence[str], stdin: str | None = None) -> tuple[str, str]:
    """Return (stdout, stderr) of one of Slurm's programs, run in `environment()`.

    Ctrl-C on the terminal does not reach it. Raises SlurmUnavailable.
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
            env=environment() | {"SLURM_TIME_FORMAT": "standard", "TZ": "UTC", "LC_ALL": "C"},
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
        output = done.stderr.strip() or done.stdout.strip() or "nothing"
        raise SlurmUnavailable(f"{argv[0]} ended with exit code {done.returncode} and said: {output}")
    return done.stdout, done.stderr


def queued_jobs() -> dict[str, JobInfo]:
    """Return every job of this user that the controller remembers, by id. Raises SlurmUnavailable."""
    options = ("--noheader", "--states=all", f"--user={os.getuid()}", f"--format={SQUEUE_FORMAT}")
    return parse_squeue(run_command(("squeue", *options))[0])


def accounted_jobs(submissions: Mapping[str, datetime]) -> Mapping[str, JobInfo]:
    """Return the accounting's records of jobs, by id. Raises SlurmUnavailable without accounting.

    `submissions` has for each id a time before its submission, in UTC. A record of an earlier submission is
    that of another job, which had the id before: ids begin anew at MaxJobId and with a new controller.
    """
    options = ("--noheader", "--parsable2", "--allocations", f"--format={SACCT_FORMAT}")
    found = parse_sacct(run_command(("sacct", *options, f"--jobs={','.join(submissions)}"))[0])
    return {
        job_id: info
        for job_id, info in found.items()
        if info.submitted_at is None or info.submitted_at >= submissions[job_id] - _CLOCKS_DIFFER
    }


def show_job(job_id: str) -> JobInfo:
    """Return the controller's record of a job, GONE if unknown. Raises SlurmUnavailable."""
    try:
        return parse_scontrol(run_command(("scontrol", "--oneliner", "show", "job", job_id))[0])
    except SlurmUnavailable as error:
        if "Invalid job id" in str(error):
            return JobInfo(GONE)
        raise


def last_known(job_id: str, submitted_at: datetime) -> JobInfo:
    """Return all that Slurm still has of one job, from the controller or else from the accounting.

    The controller is preferred: it knows which node failed, and the exit code of a job for which the
    accounting has 0:0. Returns GONE where the controller answers and neither knows the job, UNKNOWN where
    neither answers. `submitted_at` is a time before the job's submission, in UTC.
    """
    try:
        controller = show_job(job_id)
    except SlurmUnavailable:
        controller = UNKNOWN
    if controller.state not in (GONE, UNKNOWN.state):
        return controller
    try:
        account = accounted_jobs({job_id: submitted_at}).get(job_id, UNKNOWN)
    except SlurmUnavailable:
        return controller
    return account if account.phase == "ended" else controller


def unusable_nodes(nodes: str) -> tuple[str, ...]:
    """Return those of `nodes` that are down; none where Slurm does not answer."""
    options = ("--noheader", "--Node", "--states=down", "--format=%N", f"--nodes={nodes}")
    try:
        return tuple(dict.fromkeys(run_command(("sinfo", *options))[0].split()))
    except SlurmUnavailable:
        return ()


def cancel_job(job_id: str) -> None:
    """Cancel a job; one that has ended already is accepted. Raises SlurmUnavailable where Slurm refuses."""
    try:
        run_command(("scancel", job_id))
    except SlurmUnavailable as error:
        if "Invalid job id" not in str(error) and "already completing or completed" not in str(error):
            raise
