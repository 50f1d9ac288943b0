"""Ask one node of a cluster before a job of many nodes is submitted: its Python, and its software."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tune.backends.slurm.one_node_job import NotRun, OneNodeJob, python_script, run_on_one_node
from tune.core.files import read_record
from tune.deploy.plan import render, write_plan
from tune.errors import ResumableError
from tune.manifest.argument_check import ArgumentAnswer
from tune.manifest.node_report import NODE_REPORT_FILE, PLAN_FOLDER, NodeReport
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.settings import Settings

_TIME_LIMIT = "0:15:00"
_BOOTSTRAP = "action=bootstrap makes such an environment there"


def check_on_node(settings: Settings, say: Callable[[str], None]) -> Sequence[Finding]:
    """Run a job of one node that reports on its Python and has its software validate the plan.

    The plan lies in a folder of `runs_dir`, which the nodes see, while the job runs. `say` receives the
    states of the job.
    """
    runs = Path(settings.runs_dir).absolute()
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".preflight-", dir=runs))
    try:
        write_plan(render(settings.trial_spec, settings.cluster), folder / PLAN_FOLDER)
        return tuple(_findings(settings.cluster, settings.hardware, folder, say))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _findings(
    facts: ClusterFacts, hardware: Hardware, folder: Path, say: Callable[[str], None]
) -> Iterator[Finding]:
    python, log = facts.python or sys.executable, folder / "job.out"
    script = python_script(python, "-m", "tune.orchestrator", "--node-check", str(folder))
    try:
        job = run_on_one_node(OneNodeJob(facts, hardware, _TIME_LIMIT, say), script, log)
    except NotRun as reason:
        yield _not_asked("cluster", str(reason))
        return
    try:
        report = read_record(folder / NODE_REPORT_FILE, NodeReport)
    except (ResumableError, FileNotFoundError):
        report = None
    if report is None:
        output = log.read_text(errors="replace").strip()[-2000:] if log.exists() else "no output"
        yield _broken_python(python, f"{python} on a node (job {job.text}): {output}")
        return
    say(f"node {report.host}: {report.machine}, Python {report.python}")
    yield from _python_findings(report, python)
    yield from report.findings
    if report.answer is None:
        yield _not_asked("stack", report.no_answer or "")
    else:
        yield from _answer_findings(report.answer, report.host, say)


def _python_findings(report: NodeReport, python: str) -> Iterator[Finding]:
    """Yield what the node's Python lacks."""
    for module, why in report.unusable.items():
        yield _broken_python(python, f"{module} on {report.host} ({report.machine}): {why}")


def _answer_findings(answer: ArgumentAnswer, host: str, say: Callable[[str], None]) -> Iterator[Finding]:
    """Yield what the software refuses and what it was not asked; print what it accepts."""
    if answer.accepted:
        say(f"node {host}: {answer.software} accepts {', '.join(answer.accepted)}")
    for name, message in answer.refused.items():
        yield Finding(
            "error",
            name,
            message,
            "what the software of the nodes accepts",
            "a worker would end with these words once its image is unpacked, and the whole rack with it",
            f"{answer.software} on {host}",
        )
    for name, why in answer.not_checked.items():
        yield _not_asked(name, why)


def _broken_python(python: str, found: str) -> Finding:
    return Finding(
        "error",
        "cluster.python",
        found,
        f"a Python 3.11 to 3.13 of the nodes with tune and all that it needs; {_BOOTSTRAP}",
        f"jobs run on {python}, which may be another architecture's than this machine's",
        "a job of one node",
    )


def _not_asked(path: str, why: str) -> Finding:
    return Finding(
        "warning",
        path,
        f"not checked, because {why}",
        "an answer of the software on one node",
        "settings that it refuses would be noticed by the job itself, before any worker starts",
        "a job of one node",
    )
