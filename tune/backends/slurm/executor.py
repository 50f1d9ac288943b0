"""Read the id of a job from what sbatch printed, where submitit would take the first number after "job"."""

from __future__ import annotations

import re

from submitit import SlurmExecutor
from submitit.core.utils import FailedSubmissionError

_ANSWER = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)
"""Source: Slurm, src/sbatch/sbatch.c; " on cluster NAME" may follow."""


class Executor(SlurmExecutor):
    """Submit jobs as submitit does."""

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """Return the id in the answer of sbatch, the last where a wrapper repeats it.

        Raises FailedSubmissionError where there is none; the job may have been submitted then.
        """
        text = string.decode(errors="replace") if isinstance(string, bytes) else string
        ids: list[str] = _ANSWER.findall(text)
        if not ids:
            raise FailedSubmissionError(f"found {text!r}, expected a line 'Submitted batch job ID'")
        return ids[-1]
