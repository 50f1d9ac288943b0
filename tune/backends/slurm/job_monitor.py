"""Monitor the jobs that a study waits for, with one query for all of them every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from tune.backends.slurm.commands import SlurmUnavailable, accounted_jobs, last_known, queued_jobs
from tune.backends.slurm.job_states import UNKNOWN, JobInfo

POLL_INTERVAL_S = 3.0
"""Least time between two queries, in seconds. A controller serves a whole site."""


class JobMonitor:
    """Keep the state of the jobs that `follow` names; `say` prints changes and missing answers."""

    def __init__(
        self,
        say: Callable[[str], None],
        every_s: float = POLL_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every_s, self._clock = say, every_s, clock
        self._queried_s: float | None = None
        self._labels: dict[str, str] = {}
        self._submissions: dict[str, datetime] = {}
        self._infos: dict[str, JobInfo] = {}
        self._printed: dict[str, JobInfo] = {}
        self._silent = False
        self.listing: Mapping[str, JobInfo] | None = None
        """Jobs by id in the controller's last answer; None where it gave none."""

    def follow(self, job_id: str, label: str, submitted_at: datetime) -> None:
        """Monitor this job, named `label` in messages. The next `refresh` queries at once.

        `submitted_at` is a time before its submission, in UTC.
        """
        self._labels[job_id], self._submissions[job_id] = label, submitted_at
        self._queried_s = None

    def info(self, job_id: str) -> JobInfo:
        """Return the last known state of a job; UNKNOWN before the first answer."""
        return self._infos.get(job_id, UNKNOWN)

    def labelled(self, job_id: str) -> str:
        """Return id and label of a job, for a message."""
        return f"job {job_id} ({self._labels[job_id]})"

    def commented(self, comment: str) -> str | None:
        """Return the id of the job with this comment in the controller's last answer; None without one.

        Among several jobs one that has not ended is preferred.
        """
        job_ids = [job_id for job_id, info in (self.listing or {}).items() if info.comment == comment]
        job_ids.sort(key=lambda job_id: ((self.listing or {})[job_id].phase == "ended", int(job_id)))
        return job_ids[0] if job_ids else None

    def refresh(self) -> None:
        """Query Slurm, unless the last query was less than the polling interval ago."""
        now_s = self._clock()
        if self._queried_s is not None and now_s - self._queried_s < self._every_s:
            return
        open_jobs = [job_id for job_id in self._labels if self.info(job_id).phase != "ended"]
        try:
            self.listing = queued_jobs()
        except SlurmUnavailable as error:
            self.listing = None
            self._note_silence(str(error))
            self._query_accounting(open_jobs)
        else:
            self._note_answer()
            for job_id in open_jobs:
                self._note(job_id, self._with_details(job_id, self.listing.get(job_id, UNKNOWN)))
        self._queried_s = self._clock()

    def _query_accounting(self, job_ids: list[str]) -> None:
        """Note the jobs that ended by the accounting; its other states may be out of date."""
        try:
            submissions = {job_id: self._submissions[job_id] for job_id in job_ids}
            accounted = accounted_jobs(submissions) if submissions else {}
        except SlurmUnavailable:
            return
        for job_id, info in accounted.items():
            if info.phase == "ended":
                self._note(job_id, info)

    def _note(self, job_id: str, info: JobInfo) -> None:
        """Keep the new state of a job and print a change."""
        if info.phase == "unknown":
            return
        before = self._printed.get(job_id)
        self._infos[job_id] = info
        if before is not None and (before.state, before.advice) == (info.state, info.advice):
            return
        if info.phase == "waiting" and info.text == info.state:
            return  # Slurm gives no reason yet
        self._printed[job_id] = info
        change = f"{before.text} → {info.text}" if before else info.text
        self._say(f"{self.labelled(job_id)}: {change}" + (f"; {info.advice}" if info.advice else ""))

    def _with_details(self, job_id: str, listed: JobInfo) -> JobInfo:
        """Return squeue's record of a job, or the last that Slurm has of one that ended or is not listed."""
        if listed.phase in ("waiting", "running"):
            return listed
        details = last_known(job_id, self._submissions[job_id])
        return details if details.phase != "unknown" else listed

    def _note_silence(self, message: str) -> None:
        """Print, once, that Slurm does not answer."""
        if not self._silent:
            self._say(f"Slurm does not answer, which says nothing about the jobs; waiting. ({message})")
        self._silent = True

    def _note_answer(self) -> None:
        """Print that Slurm answers again, if it was silent before."""
        if self._silent:
            self._say("Slurm answers again.")
        self._silent = False
