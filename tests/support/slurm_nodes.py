"""Act as the nodes of the fake Slurm: do a batch step's work with the simulator's measurements."""

from __future__ import annotations

import time
from pathlib import Path

from support.fake_slurm import FakeSlurm
from tune.backends.simulated import simulate_attempt
from tune.backends.slurm.allocation import Allocation
from tune.orchestrator.slurm.work_queue import attempt_hosts, is_queue_closed, mark_started
from tune.records.folders import has_ended, read_attempt, trial_of, write_attempt
from tune.spec.cluster import Calibration


class Nodes:
    """Do the work in the queues of all jobs when `work` is called; `refuse` limits attempts of a job.

    `image_sha256` is the digest of the image that they find, None where there is none.
    """

    def __init__(self, slurm: FakeSlurm, calibration: Calibration, image_sha256: str | None = None) -> None:
        self.image_sha256 = image_sha256
        self.slurm, self._calibration = slurm, calibration
        self.refuse: int | None = None
        self.measured: list[Path] = []

    def work(self) -> None:
        for job_id, job in self.slurm.jobs.items():
            if job["state"] in ("PENDING", "RUNNING"):
                self._work_for(job_id)

    def _work_for(self, job_id: str) -> None:
        allocation = Allocation(self.slurm.folder(job_id))
        self.slurm.set(job_id, state="RUNNING", reason="None", nodes="g[01-18]", held="0:05")
        closed = is_queue_closed(allocation.folder)  # asked first: what is posted later is for the next round
        waiting = [attempt for attempt in allocation.attempts() if not has_ended(attempt)]
        for attempt in waiting:
            done = [each for each in allocation.attempts() if attempt_hosts(each)]
            if self.refuse is None or len(done) < self.refuse:
                self.measure(attempt)
        if closed or not all(has_ended(attempt) for attempt in waiting):
            self.end(job_id, "COMPLETED")

    def measure(self, attempt: Path) -> None:
        spec = trial_of(attempt).read_spec()
        assert spec is not None
        mark_started(attempt, ["g01"])
        self.measured.append(attempt)
        simulate_attempt(spec, self._calibration, attempt, lambda _activity: None)
        record = read_attempt(attempt)
        if record and self.image_sha256:
            write_attempt(attempt, record.model_copy(update={"image_sha256": self.image_sha256}))

    def end(self, job_id: str, state: str, **facts: str) -> None:
        ended = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 60))
        self.slurm.set(job_id, state=state, end=ended, **facts)
