"""What becomes of the jobs that a study waits for: one question for all of them, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tune.backends.slurm.commands import SlurmUnavailable, accounted_jobs, last_known, queued_jobs
from tune.backends.slurm.job_states import UNKNOWN, JobInfo

POLL_INTERVAL_S = 3.0
"""A controller serves a whole site: one question every few seconds, whatever the number of jobs."""


class JobMonitor:
    """The jobs that `follow` names. `say` hears of every change of a job's state, and of silence."""

    def __init__(
        self,
        say: Callable[[str], None],
        every_s: float = POLL_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every_s, self._clock = say, every_s, clock
        self._asked_s: float | None = None
        self._labels: dict[str, str] = {}
        self._infos: dict[str, JobInfo] = {}
        self._said: dict[str, str] = {}
        self._silent = False
        self.listing: Mapping[str, JobInfo] | None = None
        """The controller's last answer; None where it gave none."""

    def follow(self, job_id: str, label: str) -> None:
        """Watch this job; `label` names what it is for. The next `refresh` asks at once."""
        self._labels[job_id] = label
        self._asked_s = None

    def info(self, job_id: str) -> JobInfo:
        return self._infos.get(job_id, UNKNOWN)

    def labelled(self, job_id: str) -> str:
        return f"job {job_id} ({self._labels[job_id]})"

    def commented(self, comment: str) -> str | None:
        """The id of the job that carries this comment, by the controller's last answer; one that has not
        ended first."""
        found = [job_id for job_id, info in (self.listing or {}).items() if info.comment == comment]
        found.sort(key=lambda job_id: ((self.listing or {})[job_id].phase == "ended", int(job_id)))
        return found[0] if found else None

    def refresh(self) -> None:
        """Ask again, where the last question is long enough ago."""
        now_s = self._clock()
        if self._asked_s is not None and now_s - self._asked_s < self._every_s:
            return
        open_jobs = [job_id for job_id in self._labels if self.info(job_id).phase != "ended"]
        try:
            self.listing = queued_jobs()
        except SlurmUnavailable as error:
            self.listing = None
            self._hear_silence(str(error))
            self._ask_accounting(open_jobs)
        else:
            self._hear_answer()
            for job_id in open_jobs:
                self._note(job_id, _closer(job_id, self.listing.get(job_id, UNKNOWN)))
        self._asked_s = self._clock()

    def _ask_accounting(self, job_ids: list[str]) -> None:
        """Only an end is believed: what else the accounting has may be old."""
        try:
            found = accounted_jobs(job_ids) if job_ids else {}
        except SlurmUnavailable:
            return
        for job_id, info in found.items():
            if info.phase == "ended":
                self._note(job_id, info)

    def _note(self, job_id: str, info: JobInfo) -> None:
        if info.phase == "unknown":
            return
        before = self._said.get(job_id)
        self._infos[job_id] = info
        if before is not None and before.split()[0] == info.state:
            return
        if info.phase == "waiting" and info.text == info.state:
            return  # it has no reason yet
        self._said[job_id] = info.text
        self._say(f"{self.labelled(job_id)}: {before + ' → ' if before else ''}{info.text}")

    def _hear_silence(self, words: str) -> None:
        if not self._silent:
            self._say(f"Slurm does not answer, which says nothing about the jobs; waiting. ({words})")
        self._silent = True

    def _hear_answer(self) -> None:
        if self._silent:
            self._say("Slurm answers again.")
        self._silent = False


def _closer(job_id: str, listed: JobInfo) -> JobInfo:
    """What squeue listed, and of a job that it shows as ended, or not at all, all that Slurm has."""
    if listed.phase in ("waiting", "running"):
        return listed
    known = last_known(job_id)
    return known if known.phase != "unknown" else listed
