"""Run trials on Slurm: every allocation is one job, which goes on when this process ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.base import AttemptState, Backend
from tune.backends.slurm.allocation import Allocation, allocation_of, allocations, begin_allocation, study_of
from tune.backends.slurm.commands import SlurmUnavailable
from tune.backends.slurm.held_allocation import HeldAllocation, HeldSteps
from tune.backends.slurm.job_monitor import POLL_INTERVAL_S, JobMonitor
from tune.backends.slurm.job_source import JobSource
from tune.backends.slurm.job_states import JobInfo
from tune.backends.slurm.lost_jobs import record_for_lost_attempt
from tune.backends.slurm.queued_jobs import QueuedJobs
from tune.backends.slurm.submit_retry import SubmissionBackoff
from tune.errors import ResumableError
from tune.orchestrator.preflight import require_variables
from tune.orchestrator.slurm.allocation_loop import IDLE_S
from tune.orchestrator.slurm.work_queue import attempt_hosts, close_queue, enqueue_attempt, is_queue_closed
from tune.records.folders import has_ended, trial_of, write_attempt
from tune.spec.backend_kinds import SLURM
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

GRACE_S = 75.0
"""Time between a job's end and the conclusion that it left no record, in seconds. Its last files may become
visible here later than its end: an NFS client caches for 60 s that a file is missing. Source: nfs(5),
acregmax, acdirmax."""

RETRY_S = 30.0
"""Pause before a rejected job is submitted again, in seconds."""


class SlurmBackend(Backend):
    """Submit allocations to the cluster of `facts`, each for up to `trials_per_job` attempts in sequence.

    With `held` every job is a step in that allocation. `say` prints job state changes. An attempt whose job
    ended without a record gets one here, with the state of that job in Slurm.
    """

    capabilities = SLURM

    def __init__(
        self,
        facts: ClusterFacts,
        trials_per_job: int,
        say: Callable[[str], None],
        *,
        every_s: float = POLL_INTERVAL_S,
        grace_s: float = GRACE_S,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
        held: HeldAllocation | None = None,
    ) -> None:
        self._facts, self._trials_per_job, self._say = facts, trials_per_job, say
        self._monitor, self._grace = JobMonitor(say, every_s), timedelta(seconds=grace_s)
        self._jobs: JobSource = (
            QueuedJobs(facts, self._monitor, SubmissionBackoff(say, retry_s, clock), say)
            if held is None
            else HeldSteps(held, facts, self._monitor, say)
        )
        self._allocations: dict[str, Allocation] = {}
        self._job_ids: dict[Path, str] = {}
        self._checked = self._taken_over = False
        self.poll_interval_s = min(0.5, every_s)
        self.idle_s = facts.deadlines.stop_s + (IDLE_S if trials_per_job > 1 else 0.0)

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Queue an attempt of the plan in TRIAL/plan in an idle allocation, or submit a new one.

        A job that Slurm does not take now is submitted while it is polled. Raises ConfigurationError where
        the cluster cannot run the trial, Slurm refuses the job, or a variable is not set here.
        """
        handle = str(attempt.absolute())
        require_variables(spec.environments | {"cluster.srun_env": self._facts.srun_env}, os.environ)
        self._take_over(attempt)
        with _defer_ctrl_c():
            self._allocations[handle] = self._enqueue_in_idle(spec, attempt) or self._begin(spec, attempt)
        return handle

    def resume(self, attempt: Path) -> str | None:
        """Return the handle of an attempt that another process submitted, or was about to submit."""
        self._take_over(attempt)
        allocation = allocation_of(attempt)
        if allocation is None:
            return None
        self._allocations[str(attempt.absolute())] = allocation
        return str(attempt.absolute())

    def poll(self, handle: str) -> AttemptState:
        """Return the state of the attempt; submit, record or pass it on where its job requires that."""
        attempt, allocation = Path(handle), self._allocations[handle]
        if has_ended(attempt):
            return "ended"
        self._monitor.refresh()
        job_id = self._job_id(allocation, attempt)
        self._monitor.refresh()  # queries again only for a job that is new to it
        info = self._jobs.info(allocation, job_id) if job_id else None
        if job_id and info and info.phase == "ended":
            return self._without_record(attempt, allocation, job_id, info)
        return "running" if attempt_hosts(attempt) else "waiting"

    def cancel(self, handle: str) -> None:
        """Cancel the whole allocation of the attempt. Raises ResumableError where Slurm refuses."""
        allocation = self._allocations[handle]
        job_id = self._job_ids.get(allocation.folder)
        if job_id and not has_ended(Path(handle)):
            try:
                self._jobs.cancel(allocation, job_id)
            except SlurmUnavailable as error:
                raise ResumableError(f"Job {job_id} may still run: {error}") from error

    def announce_interrupt(self) -> None:
        """Print the jobs that are still waited for, and the effect of a second Ctrl-C."""
        unfinished = self._unfinished()
        self._say(
            f"Ctrl-C: no further trial is begun. Still waiting for {unfinished}.\nCtrl-C once more ends this "
            f"process and {self._jobs.second_interrupt}."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the queue of every allocation, so that its job ends after the attempts it has."""
        for allocation in self._allocations.values():
            if not is_queue_closed(allocation.folder):
                close_queue(allocation.folder)
        self._jobs.close()
        unfinished = self._unfinished()
        if unfinished:
            self._say(f"Left running: {unfinished}. The same command collects them; action=cancel ends them.")

    def _take_over(self, attempt: Path) -> None:
        """Take over, once, the open allocations of a killed process; close those that are of no use."""
        if self._taken_over:
            return
        self._taken_over = True
        for allocation in allocations(study_of(attempt)):
            record, attempts = allocation.read(), allocation.attempts()
            if is_queue_closed(allocation.folder):
                continue
            if self._trials_per_job > 1 and attempts and record and record.job_id:
                self._allocations[str(attempts[-1])] = allocation
                self._follow(allocation, record.job_id)
            else:
                close_queue(allocation.folder)

    def _unfinished(self) -> str:
        """Return the jobs of attempts that have not ended, for a message; "" where all have ended."""
        open_folders = dict.fromkeys(
            allocation.folder
            for handle, allocation in self._allocations.items()
            if not has_ended(Path(handle))
        )
        ids = [self._job_ids.get(folder) for folder in open_folders]
        described = [
            f"{self._monitor.labelled(job_id)}: {self._monitor.info(job_id).text}" for job_id in ids if job_id
        ]
        return ", ".join(described + [f"{ids.count(None)} not yet submitted"] * (None in ids))

    def _enqueue_in_idle(self, spec: TrialSpec, attempt: Path) -> Allocation | None:
        """Queue `attempt` in an idle open allocation of the right size and return it; None without one."""
        if self._trials_per_job == 1:
            return None
        self._monitor.refresh()
        for allocation in dict.fromkeys(self._allocations.values()):
            job_id, attempts = self._job_ids.get(allocation.folder), allocation.attempts()
            record = allocation.read()
            alive = job_id and self._jobs.info(allocation, job_id).phase in ("waiting", "running")
            if not alive or is_queue_closed(allocation.folder) or not all(map(has_ended, attempts)):
                continue
            if record and record.nodes == spec.hardware.nodes and len(attempts) < self._trials_per_job:
                enqueue_attempt(allocation.folder, attempt)
                if len(attempts) + 1 == self._trials_per_job:
                    close_queue(allocation.folder)
                return allocation
        return None

    def _begin(self, spec: TrialSpec, attempt: Path) -> Allocation:
        """Submit a new allocation for `attempt`. Raises ConfigurationError if the cluster cannot run it."""
        if not self._checked:
            self._jobs.require(spec)
        self._checked = True
        allocation = begin_allocation(attempt, spec.hardware.nodes, last=self._trials_per_job == 1)
        self._send(allocation, spec)
        return allocation

    def _send(self, allocation: Allocation, spec: TrialSpec) -> str | None:
        """Start the job; return its id, or None where a later `poll` has to try again.

        Raises ConfigurationError where it will never start.
        """
        job_id = self._jobs.start(allocation, spec)
        if job_id is None:
            return None
        self._identify(allocation, job_id)
        self._say(f"{self._monitor.labelled(job_id)}: {self._jobs.started}")
        return job_id

    def _identify(self, allocation: Allocation, job_id: str) -> None:
        """Put the id of the allocation's job on record and monitor the job."""
        if allocation.read() is None:
            self._say(f"{allocation.record_path} was not readable; it is written anew, for job {job_id}.")
        allocation.identify(job_id, _spec(allocation.attempts()[0]).hardware.nodes)
        self._follow(allocation, job_id)

    def _follow(self, allocation: Allocation, job_id: str) -> None:
        """Monitor the job under the name of its first trial."""
        first, *further = allocation.attempts()
        label = f"trial {trial_of(first).root.name}" + (" and others" if further else "")
        self._job_ids[allocation.folder] = job_id
        self._monitor.follow(job_id, label, allocation.submitted_after())

    def _job_id(self, allocation: Allocation, attempt: Path) -> str | None:
        """Return the id of the allocation's job; None while Slurm does not answer.

        The process that began the allocation may have ended before it recorded the id, or before it submitted
        the job: both are made up for here.
        """
        job_id = self._job_ids.get(allocation.folder)
        if job_id:
            return job_id
        record = allocation.read()
        if record and record.job_id:
            self._follow(allocation, record.job_id)
            return record.job_id
        if self._monitor.listing is None:
            return None
        job_id = self._monitor.commented(allocation.comment) or allocation.traces()
        if job_id:
            self._identify(allocation, job_id)
            return job_id
        with _defer_ctrl_c():
            return self._send(allocation, _spec(attempt))

    def _without_record(
        self, attempt: Path, allocation: Allocation, job_id: str, info: JobInfo
    ) -> AttemptState:
        """Return the state of an attempt without a record, whose job has ended.

        The job never started it, its files are not visible yet, or it is lost. An attempt that was not
        started gets another job, unless it is the first of its allocation or the job was cancelled. A job
        that was cancelled in the queue wrote nothing, so that its attempt is not waited for.
        """
        started = bool(attempt_hosts(attempt)) or attempt == allocation.attempts()[0]
        if not started and info.state != "CANCELLED":
            self._say(f"{self._monitor.labelled(job_id)} ended before it took {attempt}: it gets another job")
            with _defer_ctrl_c():
                self._allocations[str(attempt)] = self._begin(_spec(attempt), attempt)
            return "waiting"
        ended_at = info.ended_at or allocation.noticed_at()
        in_queue = info.state == "CANCELLED" and info.occupied_s == 0
        if not in_queue and datetime.now(UTC) - ended_at < self._grace:
            return "running"
        if not has_ended(attempt):
            record = record_for_lost_attempt(attempt, allocation, job_id, info)
            write_attempt(attempt, record, durable=True)
        return "ended"


def _spec(attempt: Path) -> TrialSpec:
    """Return the trial of an attempt. Raises ResumableError where it is not on record."""
    spec = trial_of(attempt).read_spec()
    if spec is None:
        raise ResumableError(
            f"{trial_of(attempt).root}: no spec.json, which expected one beside its attempts."
        )
    return spec


@contextmanager
def _defer_ctrl_c() -> Iterator[None]:
    """Hold back Ctrl-C until the block ends; sbatch inherits this, so that it finishes first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
