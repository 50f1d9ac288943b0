"""Collect what every node of an attempt reports of itself and its software, and write it down.

Nothing that hinders a report ends the attempt: what is not known is said to be missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune.errors import ResumableError
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.managed_process import (
    POLL_S,
    ManagedProcess,
    PrintLine,
    describe_exit,
    stop_group,
)
from tune.records.evidence import Evidence, merge_reports, read_evidence, read_node_reports, write_evidence

LIMIT_S = 120.0
"""Seconds for the reports, after what runs beside them: an image is unpacked on every node first."""


@contextmanager
def collected_evidence(deployment: Deployment, attempt: Path, print_line: PrintLine) -> Iterator[None]:
    """Collect reports of all nodes while the body runs, then write evidence.json in the folder `attempt`.

    Where all workers run already, the evidence is that of the attempt which started the last of them.
    """
    process = deployment.manifest.evidence
    if process is None:
        yield
        return
    workers = deployment.running_workers()
    if len(workers) == len(deployment.workers()):
        _copy_evidence(workers[-1].log.parents[1], attempt)
        yield
        return
    try:
        running = deployment.start(process)
    except AttemptFailed as failure:
        print_line(f"no evidence of the nodes: {failure}")
        yield
        return
    try:
        yield
    except AttemptFailed:  # software that refuses the configuration is on record too
        _keep_evidence(deployment, running, attempt, print_line)
        raise
    _keep_evidence(deployment, running, attempt, print_line)


def _copy_evidence(earlier: Path, attempt: Path) -> None:
    """Copy the evidence of the attempt `earlier` of this allocation, where it has any."""
    try:
        evidence = read_evidence(earlier)
    except ResumableError:
        return
    if evidence is not None:
        write_evidence(attempt, evidence)


def _keep_evidence(
    deployment: Deployment, running: ManagedProcess, attempt: Path, print_line: PrintLine
) -> None:
    """Wait for the reports of `running`, then write and print what they say."""
    deadline_s = time.monotonic() + LIMIT_S
    while (code := running.handle.poll()) is None and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    if code is None:
        stop_group([running], deployment.manifest.deadlines.stop_s, print_line)
    deployment.release(running)
    ended = f"no answer within {LIMIT_S:g} s" if code is None else f"it ended {describe_exit(code)}"
    reports = read_node_reports(running.log)
    hosts = [deployment.nodes.hosts[index] for index in running.process.nodes]
    if len(set(hosts)) == 1:  # all node indices are one machine, however that calls itself
        reports = [report.model_copy(update={"host": hosts[0]}) for report in reports]
    evidence = merge_reports(hosts, reports, f"{ended}: {last_lines(running.log)}")
    write_evidence(attempt, evidence)
    print_line(_summary(evidence))


def _summary(evidence: Evidence) -> str:
    """Return the versions that were found in one line, and what is missing."""
    found = ", ".join(f"{name} {version}" for name, version in evidence.versions.items()) or "none"
    missing = f"; not known: {', '.join(evidence.missing)}" if evidence.missing else ""
    return f"versions found: {found}{missing}"
