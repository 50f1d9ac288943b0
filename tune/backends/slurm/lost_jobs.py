"""Write the record of an attempt whose job ended without one, from what Slurm says of the job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.commands import unusable_nodes
from tune.backends.slurm.job_states import GONE, JobInfo
from tune.orchestrator.failures import last_lines, message_evidence
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import read_attempt
from tune.records.held_time import read_free_after


def record_for_lost_attempt(
    attempt: Path, allocation: Allocation, job_id: str, info: JobInfo
) -> AttemptRecord:
    """Return the record of `attempt`, the last that its job had begun.

    Parameters
    ----------
    attempt, allocation
        Folder of the attempt, and the allocation that had it in its queue.
    job_id, info
        The job, and what Slurm says of it.

    Returns
    -------
    AttemptRecord
        An infrastructure failure. Its GPU time is that of the job less that of the job's other attempts.
    """
    others_s = sum(_occupied_s(folder) for folder in allocation.attempts() if folder != attempt)
    occupied_s = max(0.0, (info.occupied_s or 0.0) - others_s)
    ended_at = info.ended_at or datetime.now(UTC)
    error = _reason(allocation, job_id, info)
    return AttemptRecord(
        started_at=(ended_at - timedelta(seconds=occupied_s)).isoformat(),
        ended_at=ended_at.isoformat(),
        occupied_s=occupied_s,
        error=error,
        cause="infrastructure",
        evidence=message_evidence(error.splitlines()[0]),
        failed_nodes=_failed_nodes(info) or None,
    )


def _occupied_s(attempt: Path) -> float:
    """Return for how many seconds an attempt held the nodes, 0 for one that never began."""
    record, free_after_s = read_attempt(attempt), read_free_after(attempt)
    return free_after_s or (record.occupied_s if record else 0.0)


def _failed_nodes(info: JobInfo) -> tuple[str, ...]:
    """Return the nodes whose failure ended the job, as far as Slurm says."""
    if info.failed_node:
        return (info.failed_node,)
    return unusable_nodes(info.nodes) if info.state == "NODE_FAIL" else ()


def _reason(allocation: Allocation, job_id: str, info: JobInfo) -> str:
    """Return why the attempt is lost, for people, with the last lines of the job's log."""
    log = allocation.log()
    log_tail = f"; the last lines of its log:\n{last_lines(log)}" if log else "; it never began to run"
    if info.state == GONE:
        return f"lost: Slurm no longer knows job {job_id}, which left no record of this attempt{log_tail}"
    failed = ", ".join(_failed_nodes(info))
    facts = [
        f"lost: job {job_id} ended as {info.state}",
        *([f"exit code {info.exit_code}"] if info.exit_code else []),
        *([f"on {info.nodes}"] if info.nodes else []),
        *([f"node {failed} is down"] if failed else []),
    ]
    return f"{', '.join(facts)}, and left no record of this attempt{log_tail}"
