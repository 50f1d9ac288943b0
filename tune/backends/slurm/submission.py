"""Submit allocations through submitit, whose function runs as the batch step on the head node."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.commands import environment
from tune.core.files import write_error
from tune.errors import ConfigurationError, ResumableError, TuneError

_BUSY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes were transmitted"
    r"|Slurm temporarily unable|temporarily disabled|slurm controller in process of startup"
)
"""Refusals that pass by themselves. Source: Slurm, src/common/slurm_errno.c."""

_POLICY = re.compile(r"Job violates accounting/QOS policy|[Jj]ob submit limit")
_NAMED = re.compile(r"\b(?:QOS|Assoc)\w+")
_SUBMITTED = re.compile(r"Submit")
"""Name of a limit on the number of submitted jobs. Slurm refuses for many limits in the same words; newer
versions name the limit before them. The names are QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit,
AssocGrpSubmitJobsLimit and the like. Source: Slurm, src/common/slurm_protocol_defs.c,
job_state_reason_string; seen in 22.05."""

LIMIT_PATIENCE_S, POLICY_PATIENCE_S = 24 * 3600.0, 1800.0
"""Time for which a rejected job is submitted again, in seconds: for a limit that other jobs of the user use
up, which passes when they end, and for a limit that Slurm does not name, which may not pass."""


class RetryableRejection(ResumableError):
    """Report that Slurm may take the job later, within `patience_s` seconds; None for no time limit."""

    def __init__(self, message: str, patience_s: float | None) -> None:
        super().__init__(message)
        self.patience_s = patience_s


def submit_job(allocation: Allocation, options: Mapping[str, Any], python: str) -> str:
    """Submit the job of an allocation with sbatch's `options`; return its id. `python` runs it on the nodes.

    The job runs `tune.orchestrator.slurm.batch_step.run_allocation` with the folder's path as its only
    argument. The process replaces the shell of the batch step (`exec`), so that signals reach it. Raises
    ConfigurationError with Slurm's words where it refuses the job, RetryableRejection where it may take the
    job later, and what `write_error` returns where the folder cannot be written.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415

    from tune.backends.slurm.executor import Executor  # noqa: PLC0415  (submitit costs 80 ms)
    from tune.orchestrator.slurm.batch_step import run_allocation  # noqa: PLC0415

    _require_plain(allocation)
    executor = Executor(folder=allocation.folder, python=f"exec {shlex.quote(python)}")
    named = {name.replace("-", "_"): value for name, value in options.items()}
    executor.update_parameters(use_srun=False, stderr_to_stdout=True, wckey=None, additional_parameters=named)
    try:
        with _plain_environment(), redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
            return str(executor.submit(run_allocation, str(allocation.folder)).job_id)
    except FailedSubmissionError as error:
        raise RetryableRejection(f"sbatch: {error}", None) from error
    except FailedJobError as error:
        raise _refusal(str(error)) from error
    except OSError as error:
        raise write_error(allocation.folder, error) from error


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Set the environment that sbatch, started by submitit, and the job inherit to `environment()`."""
    before, plain = dict(os.environ), environment()
    for name in before.keys() - plain.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _refusal(message: str) -> TuneError:
    """Return the error for a refusal with this message, retryable where it may pass."""
    later = f"Slurm does not take the job now, it is tried again: {message}"
    if _BUSY.search(message):
        return RetryableRejection(later, None)
    limits = _NAMED.findall(message)
    if any(_SUBMITTED.search(name) for name in limits):
        return RetryableRejection(later, LIMIT_PATIENCE_S)
    if _POLICY.search(message) and not limits:
        return RetryableRejection(later, POLICY_PATIENCE_S)
    return rejection_error(message)


def rejection_error(message: str) -> ConfigurationError:
    """Return the error for a job that Slurm refuses with this message and will not take later."""
    return ConfigurationError(
        f"Slurm refused the job:\n  {message}\nExpected a job that the cluster accepts: change the settings "
        "of cluster (cluster.partition, cluster.account, cluster.qos, cluster.time_limit, ...); "
        "action=preflight asks Slurm without submitting, sacctmgr show qos and show assoc list the limits."
    )


def _require_plain(allocation: Allocation) -> None:
    """Raise ConfigurationError for a % in the path: sbatch expands it, and submitit does not escape it."""
    if "%" in str(allocation.folder):
        raise ConfigurationError(
            f"runs_dir, study.name: the path {allocation.folder} holds a %, which sbatch would fill in; "
            "expected a path without."
        )
