"""Parse the output of Slurm's programs about jobs into one form.

Sources: squeue(1), JOB STATE CODES; sacct(1), ELAPSED, STATE; scontrol(1), show job; sbatch(1), --time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from tune.spec.slurm_time import duration_s

Phase = Literal["waiting", "running", "ended", "unknown"]

_WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "POWER_UP_NODE"}
)
_RUNNING = frozenset(
    {
        *("RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"),
        *("SUSPENDED", "UPDATE_DB"),
    }
)
_ENDED = frozenset(
    {
        *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED"),
    }
)
_HELD_STATES = ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_HELD = re.compile(r"JobHeld|JobHold|\bheld\b", re.IGNORECASE)
_NEVER = re.compile(
    r"BadConstraints|Dependency\w*Never\w*|(?:Invalid|NotAllowed)\w*|\w+(?:Invalid|NotAllowed)"
    r"|Partition(?:Config|NodeLimit|TimeLimit)|ReservationDeleted|DeadLine|MaxMemPerLimit"
    r"|(?:Assoc|QOS)Max\w+(?:PerJob|PerNode|PerJobLimit)|QOSMin\w+"
)
_NEVER_BEGINS = (
    "it cannot begin as it was submitted: action=cancel ends it, then change cluster.* and run the command "
    "again, or have the limit raised"
)
"""Reasons of a wait that lasts until somebody acts. Source: Slurm 26.05, src/common/job_state_reason.c."""

GONE = "GONE"
"""State of a job that an answering controller does not know (any more). Defined here, no state of Slurm's."""

SQUEUE_FORMAT = "%i|%T|%r|%N|%M|%e|%k"
SACCT_FORMAT = "JobID,State,ExitCode,NodeList,ElapsedRaw,Submit,End"


@dataclass(frozen=True)
class JobInfo:
    """Hold one job as Slurm describes it; texts are Slurm's own, "" where there is none.

    Attributes
    ----------
    state
        Bare state, as `base_state` returns it.
    reason, nodes, exit_code, failed_node, comment
        Texts of Slurm.
    occupied_s
        Time for which the job has held its nodes so far, in seconds.
    ended_at
        When the job ended, in UTC; None for a job that has not.
    submitted_at
        When Slurm took the job, in UTC; None where only its accounting says.
    """

    state: str
    reason: str = ""
    nodes: str = ""
    exit_code: str = ""
    failed_node: str = ""
    occupied_s: float | None = None
    ended_at: datetime | None = None
    submitted_at: datetime | None = None
    comment: str = ""

    @property
    def phase(self) -> Phase:
        """Return whether the job waits, runs or has ended."""
        return phase(self.state)

    @property
    def text(self) -> str:
        """Return the state for a message: PENDING (Resources), RUNNING on g[01-18]."""
        if self.phase == "waiting" and self.reason not in ("", "None"):
            return f"{self.state} ({self.reason})"
        return f"{self.state} on {self.nodes}" if self.nodes else self.state

    @property
    def advice(self) -> str:
        """Return what to do about a job whose wait does not end by itself; "" for any other job."""
        if self.phase != "waiting":
            return ""
        if self.state in _HELD_STATES or _HELD.search(self.reason):
            return "it is held: scontrol release lets it go on (after JobHeldAdmin, an administrator's alone)"
        return _NEVER_BEGINS if _NEVER.fullmatch(self.reason) else ""


UNKNOWN = JobInfo("UNKNOWN")


def base_state(text: str) -> str:
    """Return a printed state without additions: CANCELLED for "CANCELLED by 1000" and "CANCELLED+"."""
    word = (text.split() or [""])[0].upper()
    return word.rstrip("+")


def phase(state: str) -> Phase:
    """Return the phase of a bare state; "unknown" for a state that is not listed here."""
    if state in _WAITING:
        return "waiting"
    if state in _RUNNING:
        return "running"
    return "ended" if state in _ENDED or state == GONE else "unknown"


def parse_squeue(text: str) -> dict[str, JobInfo]:
    """Return the jobs that `squeue --format=SQUEUE_FORMAT` printed, by id; other lines are left out."""
    jobs = {}
    for line in text.splitlines():
        fields = line.split("|", 6)
        if len(fields) == 7 and fields[0].isdecimal():
            job_id, state, reason, nodes, held, end, comment = fields
            info = JobInfo(base_state(state), reason, nodes, occupied_s=duration_s(held), comment=comment)
            jobs[job_id] = _with_end(info, end)
    return jobs


def parse_sacct(text: str) -> dict[str, JobInfo]:
    """Return the jobs that `sacct --parsable2 --noheader --format=SACCT_FORMAT` printed, by id."""
    jobs = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 7 and fields[0].isdecimal():
            job_id, state, exit_code, nodes, elapsed_s, submit, end = fields
            info = JobInfo(
                base_state(state),
                nodes="" if nodes.startswith("None") else nodes,
                exit_code=exit_code,
                occupied_s=float(elapsed_s) if elapsed_s.isdecimal() else None,
                submitted_at=_time(submit),
            )
            jobs[job_id] = _with_end(info, end)
    return jobs


def parse_scontrol(text: str) -> JobInfo:
    """Return the job that `scontrol --oneliner show job ID` printed; UNKNOWN where it printed none."""
    fields: dict[str, str] = {}
    for name, value in _words(text):
        fields.setdefault(name, value)  # a comment of the user, which comes later, changes nothing
    if "JobState" not in fields:
        return UNKNOWN
    nodes = fields.get("NodeList", "")
    info = JobInfo(
        base_state(fields["JobState"]),
        reason=fields.get("Reason", ""),
        nodes="" if nodes in ("(null)", "None") else nodes,
        exit_code=fields.get("ExitCode", ""),
        failed_node=fields.get("FailedNode", ""),
        occupied_s=duration_s(fields.get("RunTime", "")),
    )
    return _with_end(info, fields.get("EndTime", ""))


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield NAME=VALUE pairs; a value ends at the next space, which suffices for the fields read here."""
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals:
            yield name, value


def _with_end(info: JobInfo, text: str) -> JobInfo:
    """Return `info` with its end, for an ended job only: Slurm gives a running one its expected end."""
    return replace(info, ended_at=_time(text)) if info.phase == "ended" else info


def _time(text: str) -> datetime | None:
    """Return a time that Slurm printed in UTC; None for "Unknown", "N/A" and the like."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None
