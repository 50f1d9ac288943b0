"""Submit jobs to Slurm's queue."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.commands import cancel_job
from tune.backends.slurm.failed_nodes import AvoidedNodes
from tune.backends.slurm.job_monitor import JobMonitor
from tune.backends.slurm.job_source import JobSource
from tune.backends.slurm.job_states import JobInfo
from tune.backends.slurm.preflight import require_cluster
from tune.backends.slurm.submission import RetryableRejection, submit_job
from tune.backends.slurm.submit_retry import SubmissionBackoff
from tune.deploy.job_script import sbatch_options
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec


class QueuedJobs(JobSource):
    """Submit one job for each allocation, on nodes that did not fail repeatedly in its study."""

    started = "submitted"
    second_interrupt = "leaves them running; the same command collects them later"

    def __init__(
        self,
        facts: ClusterFacts,
        monitor: JobMonitor,
        backoff: SubmissionBackoff,
        say: Callable[[str], None],
    ) -> None:
        self._facts, self._monitor, self._backoff = facts, monitor, backoff
        self._avoided = AvoidedNodes(say)

    def require(self, spec: TrialSpec) -> None:
        """Raise ConfigurationError where the cluster cannot run a job of `spec`."""
        require_cluster(self._facts, spec)

    def start(self, allocation: Allocation, spec: TrialSpec) -> str | None:
        """Submit the job; return None where Slurm takes none now.

        Raises ConfigurationError where Slurm refuses the job, or rejected it for longer than a limit may
        last.
        """
        if self._backoff.is_to_wait(allocation.folder):
            return None
        facts = self._avoiding(allocation)
        options = sbatch_options(facts, spec.hardware.nodes, spec.hardware.gpus_per_node)
        try:
            python = facts.python or sys.executable
            return submit_job(allocation, options | {"comment": allocation.comment}, python)
        except RetryableRejection as error:
            self._backoff.note(allocation.folder, error)
            return None

    def info(self, allocation: Allocation, job_id: str) -> JobInfo:
        """Return what the monitor knows of the job."""
        return self._monitor.info(job_id)

    def cancel(self, allocation: Allocation, job_id: str) -> None:
        """Cancel the whole job. Raises SlurmUnavailable where Slurm refuses."""
        cancel_job(job_id)

    def close(self) -> None:
        """Leave jobs alone: they go on without this process."""

    def _avoiding(self, allocation: Allocation) -> ClusterFacts:
        """Return the facts of the cluster without nodes that failed repeatedly."""
        avoided = self._avoided.of(allocation.folder.parents[1])
        exclude = tuple(dict.fromkeys((*self._facts.exclude, *avoided)))
        return self._facts.model_copy(update={"exclude": exclude})
