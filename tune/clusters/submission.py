"""The submission of an allocation, through submitit: its function runs as the batch step on the head node."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

from tune.clusters.allocation import Allocation
from tune.clusters.slurm_commands import environment
from tune.errors import FixCommand, RunAgain, TuneError

_PASSING = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes were transmitted"
    r"|Slurm temporarily unable|temporarily disabled|slurm controller in process of startup"
    r"|[Jj]ob submit limit|Job violates accounting/QOS policy|MaxSubmitJob|SubmitJobs?Limit"
)
"""Refusals that another time may not meet. Source: Slurm, src/common/slurm_errno.c."""


def submit_job(allocation: Allocation, options: Mapping[str, Any]) -> str:
    """The id of the job that now waits for the allocation; `options` are sbatch's.

    The job runs `tune.orchestrate.job.run_job` with the folder's path and nothing else. The process is the
    batch step itself (`exec`): signals reach it and no shell. Raises FixCommand where Slurm refuses the job,
    with its words, and RunAgain where it may take it later.
    """
    from submitit import SlurmExecutor  # noqa: PLC0415  (costs 80 ms, which only a submission should)
    from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415

    from tune.orchestrate.job import run_job  # noqa: PLC0415

    _require_plain(allocation)
    executor = SlurmExecutor(folder=allocation.folder, python=f"exec {shlex.quote(sys.executable)}")
    named = {name.replace("-", "_"): value for name, value in options.items()}
    executor.update_parameters(use_srun=False, stderr_to_stdout=True, wckey=None, additional_parameters=named)
    try:
        with _plain_environment(), redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
            return str(executor.submit(run_job, str(allocation.folder)).job_id)
    except FailedSubmissionError as error:
        raise RunAgain(f"sbatch: {error}") from error
    except FailedJobError as error:
        raise _refusal(str(error)) from error


@contextmanager
def _plain_environment() -> Iterator[None]:
    """What sbatch, which submitit starts, and with it the job inherit: `environment`."""
    before, plain = dict(os.environ), environment()
    for name in before.keys() - plain.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _refusal(words: str) -> TuneError:
    if _PASSING.search(words):
        return RunAgain(f"Slurm does not take the job now, it is tried again: {words}")
    return FixCommand(
        f"Slurm refused the job:\n  {words}\nExpected a job that the cluster accepts: change the settings of "
        "cluster (cluster.partition, cluster.account, cluster.time_limit, ...); action=preflight asks Slurm "
        "without submitting."
    )


def _require_plain(allocation: Allocation) -> None:
    """Slurm fills in % in the names of log files, and submitit writes them as they are."""
    if "%" in str(allocation.folder):
        raise FixCommand(
            f"runs_dir, study.name: the path {allocation.folder} holds a %, which sbatch would fill in; "
            "expected a path without."
        )
