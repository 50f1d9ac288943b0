"""Slurm as a place to run: every allocation is one job, and goes on whether or not this process does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.base import AttemptState, Backend
from tune.backends.capabilities import SLURM
from tune.backends.slurm.allocation import Allocation, allocation_of, allocations, begin_allocation, study_of
from tune.backends.slurm.commands import SlurmUnavailable, cancel_job
from tune.backends.slurm.job_monitor import POLL_INTERVAL_S, JobMonitor
from tune.backends.slurm.job_states import JobInfo
from tune.backends.slurm.lost_jobs import record_for_lost_attempt
from tune.backends.slurm.preflight import require_cluster
from tune.backends.slurm.submission import RetryableRejection, submit_job
from tune.backends.slurm.submit_retry import SubmissionBackoff
from tune.deploy.job_script import sbatch_options
from tune.errors import ResumableError
from tune.orchestrator.slurm.work_queue import attempt_hosts, close_queue, enqueue_attempt, is_queue_closed
from tune.records.folders import has_ended, trial_of, write_attempt
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

GRACE_S = 75.0
"""What a job wrote last may reach this machine later than the news of its end: an NFS client may know for
60 s that a file is not there. Source: nfs(5), acregmax, acdirmax."""

RETRY_S = 30.0
"""Between two submissions of a job that a busy controller, or a limit of the user's jobs, turned down."""


class SlurmBackend(Backend):
    """Allocations on the cluster of `facts`, each for up to `trials_per_job` attempts, one after the other.

    `say` hears what becomes of the jobs. An attempt whose job ended without a record of it gets one here,
    with what Slurm says of that job.
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
    ) -> None:
        self._facts, self._trials_per_job, self._say = facts, trials_per_job, say
        self._watch, self._grace = JobMonitor(say, every_s), timedelta(seconds=grace_s)
        self._turned_down = SubmissionBackoff(say, retry_s, clock)
        self._given: dict[str, Allocation] = {}
        self._job_ids: dict[Path, str] = {}
        self._checked = self._adopted = False
        self.poll_interval_s = min(0.5, every_s)

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """As the protocol says, with the plan in TRIAL/plan. Raises ConfigurationError where the cluster cannot run
        the trial or Slurm refuses it; one that Slurm does not take now is submitted while it is polled."""
        handle = str(attempt.absolute())
        self._adopt(attempt)
        with _ctrl_c_later():
            self._given[handle] = self._give_to_idle(spec, attempt) or self._begin(spec, attempt)
        return handle

    def resume(self, attempt: Path) -> str | None:
        """The handle of an attempt that another process submitted, or was about to when it ended."""
        self._adopt(attempt)
        allocation = allocation_of(attempt)
        if allocation is None:
            return None
        self._given[str(attempt.absolute())] = allocation
        return str(attempt.absolute())

    def poll(self, handle: str) -> AttemptState:
        attempt, allocation = Path(handle), self._given[handle]
        if has_ended(attempt):
            return "ended"
        self._watch.refresh()
        job_id = self._job_id(allocation, attempt)
        self._watch.refresh()  # asks again only of a job that is new to it
        info = self._watch.info(job_id) if job_id else None
        if job_id and info and info.phase == "ended":
            return self._without_record(attempt, allocation, job_id, info)
        return "running" if attempt_hosts(attempt) else "waiting"

    def cancel(self, handle: str) -> None:
        """End the whole allocation of the attempt. Raises ResumableError where Slurm does not do it."""
        job_id = self._job_ids.get(self._given[handle].folder)
        if job_id and not has_ended(Path(handle)):
            try:
                cancel_job(job_id)
            except SlurmUnavailable as error:
                raise ResumableError(f"Job {job_id} may still run: {error}") from error

    def announce_interrupt(self) -> None:
        left = self._unfinished()
        self._say(
            f"Ctrl-C: no further trial is begun. Still waiting for {left}.\nCtrl-C once more ends this "
            "process and leaves them running; the same command collects them later."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Jobs go on; none waits for more than it was given."""
        for allocation in self._given.values():
            if not is_queue_closed(allocation.folder):
                close_queue(allocation.folder)
        left = self._unfinished()
        if left:
            self._say(f"Left running: {left}. The same command collects them; action=cancel ends them.")

    def _adopt(self, attempt: Path) -> None:
        """Once: an allocation that a killed process left open is given trials, or closed, so that it ends."""
        if self._adopted:
            return
        self._adopted = True
        for allocation in allocations(study_of(attempt)):
            record, given = allocation.read(), allocation.attempts()
            if is_queue_closed(allocation.folder):
                continue
            if self._trials_per_job > 1 and given and record and record.job_id:
                self._given[str(given[-1])] = allocation
                self._follow(allocation, record.job_id)
            else:
                close_queue(allocation.folder)

    def _unfinished(self) -> str:
        """The jobs of attempts that have not ended, for a message; "" where all have."""
        open_folders = dict.fromkeys(
            allocation.folder for handle, allocation in self._given.items() if not has_ended(Path(handle))
        )
        ids = [self._job_ids.get(folder) for folder in open_folders]
        named = [
            f"{self._watch.labelled(job_id)}: {self._watch.info(job_id).text}" for job_id in ids if job_id
        ]
        return ", ".join(named + [f"{ids.count(None)} not yet submitted"] * (None in ids))

    def _give_to_idle(self, spec: TrialSpec, attempt: Path) -> Allocation | None:
        """Have an open allocation run `attempt` that has nothing else to do and as many nodes."""
        if self._trials_per_job == 1:
            return None
        self._watch.refresh()
        for allocation in dict.fromkeys(self._given.values()):
            job_id, given = self._job_ids.get(allocation.folder), allocation.attempts()
            record = allocation.read()
            alive = job_id and self._watch.info(job_id).phase in ("waiting", "running")
            if not alive or is_queue_closed(allocation.folder) or not all(has_ended(each) for each in given):
                continue
            if record and record.nodes == spec.hardware.nodes and len(given) < self._trials_per_job:
                enqueue_attempt(allocation.folder, attempt)
                if len(given) + 1 == self._trials_per_job:
                    close_queue(allocation.folder)
                return allocation
        return None

    def _begin(self, spec: TrialSpec, attempt: Path) -> Allocation:
        """A new allocation for `attempt`, submitted."""
        if not self._checked:
            require_cluster(self._facts, spec)
        self._checked = True
        allocation = begin_allocation(attempt, spec.hardware.nodes, last=self._trials_per_job == 1)
        self._send(allocation, spec)
        return allocation

    def _send(self, allocation: Allocation, spec: TrialSpec) -> str | None:
        """The id of the submitted job; None where Slurm takes none now, which another `poll` tries again.

        Raises ConfigurationError where Slurm refuses it, or did not take it for as long as that might pass.
        """
        if self._turned_down.is_to_wait(allocation.folder):
            return None
        options = sbatch_options(self._facts, spec.hardware.nodes, spec.hardware.gpus_per_node)
        try:
            job_id = submit_job(allocation, options | {"comment": allocation.comment})
        except RetryableRejection as error:
            self._turned_down.note(allocation.folder, error)
            return None
        self._identify(allocation, job_id)
        self._say(f"{self._watch.labelled(job_id)}: submitted")
        return job_id

    def _identify(self, allocation: Allocation, job_id: str) -> None:
        if allocation.read() is None:
            self._say(f"{allocation.record_path} was not readable; it is written anew, for job {job_id}.")
        allocation.identify(job_id, _spec(allocation.attempts()[0]).hardware.nodes)
        self._follow(allocation, job_id)

    def _follow(self, allocation: Allocation, job_id: str) -> None:
        first, *more = allocation.attempts()
        label = f"trial {trial_of(first).root.name}" + (" and others" if more else "")
        self._job_ids[allocation.folder] = job_id
        self._watch.follow(job_id, label)

    def _job_id(self, allocation: Allocation, attempt: Path) -> str | None:
        """The id of the allocation's job; None while Slurm does not say.

        The process that began it may not have lived to put it on record, or to submit it, which is done now.
        """
        known = self._job_ids.get(allocation.folder)
        if known:
            return known
        record = allocation.read()
        if record and record.job_id:
            self._follow(allocation, record.job_id)
            return record.job_id
        if self._watch.listing is None:
            return None
        found = self._watch.commented(allocation.comment) or allocation.traces()
        if found:
            self._identify(allocation, found)
            return found
        with _ctrl_c_later():
            return self._send(allocation, _spec(attempt))

    def _without_record(
        self, attempt: Path, allocation: Allocation, job_id: str, info: JobInfo
    ) -> AttemptState:
        """The job is over and the attempt has no record: never taken, still on its way here, or lost.

        The first of an allocation is always tried, and what was cancelled is not begun again. What was
        cancelled in the queue wrote nothing.
        """
        taken = bool(attempt_hosts(attempt)) or attempt == allocation.attempts()[0]
        if not taken and info.state != "CANCELLED":
            self._say(f"{self._watch.labelled(job_id)} ended before it took {attempt}: it gets another job")
            with _ctrl_c_later():
                self._given[str(attempt)] = self._begin(_spec(attempt), attempt)
            return "waiting"
        ended_at = info.ended_at or allocation.noticed_at()
        in_queue = info.state == "CANCELLED" and info.held_s == 0
        if not in_queue and datetime.now(UTC) - ended_at < self._grace:
            return "running"
        if not has_ended(attempt):
            write_attempt(attempt, record_for_lost_attempt(attempt, allocation, job_id, info))
        return "ended"


def _spec(attempt: Path) -> TrialSpec:
    spec = trial_of(attempt).read_spec()
    if spec is None:
        raise ResumableError(
            f"{trial_of(attempt).root}: no spec.json, which expected one beside its attempts."
        )
    return spec


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Ctrl-C on the terminal reaches every process there: sbatch, which inherits this, finishes first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
