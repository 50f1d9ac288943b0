"""Report on the node of a Slurm job of one node: its Python, and what its software says of a plan."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from tune.checkpoint.checkpoint_files import check_checkpoint
from tune.client.accuracy_needs import accuracy_findings
from tune.client.client_settings import ClientRun
from tune.core.files import read_record, write_text
from tune.errors import TuneError
from tune.manifest.argument_check import ArgumentAnswer
from tune.manifest.node_report import NODE_REPORT_FILE, PLAN_FOLDER, NodeReport
from tune.manifest.process_manifest import ACCURACY_CLIENT_FILE, read_manifest
from tune.orchestrator.accepted_arguments import ask_software
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.launcher import NodeAddresses
from tune.orchestrator.managed_process import PrintLine
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.slurm.job import SlurmJob, current_job
from tune.orchestrator.slurm.srun import SrunLauncher
from tune.spec.findings import Finding

_MODULES = ("submitit", "mlperf_loadgen", "tune.client.run", "tune.orchestrator.attempt", "numba")
"""What a job imports: its batch step, LoadGen, the load client, the orchestrator, a forecast."""


def report_on_node(folder: Path, temporary: Path, print_line: PrintLine) -> int:
    """Write the report of this node into `folder`, which holds the plan; return the exit code 0.

    `temporary` is a folder of this node for temporary files.
    """
    job = current_job(os.environ)
    answer = _ask(job, folder, temporary, print_line)
    report = NodeReport(
        host=job.nodes(1).hosts[0],
        machine=platform.machine(),
        python=platform.python_version(),
        unusable=_unusable_modules(),
        findings=(*checkpoint_findings(folder / PLAN_FOLDER), *findings_on_accuracy(folder / PLAN_FOLDER)),
        answer=None if isinstance(answer, str) else answer,
        no_answer=answer if isinstance(answer, str) else None,
    )
    write_text(folder / NODE_REPORT_FILE, report.model_dump_json(indent=1) + "\n")
    return 0


def checkpoint_findings(plan: Path) -> tuple[Finding, ...]:
    """Return what is wrong with the checkpoint as this node sees it."""
    expected = read_manifest(plan).checkpoint
    return check_checkpoint(expected) if expected else ()


def findings_on_accuracy(plan: Path) -> tuple[Finding, ...]:
    """Return what this node lacks for the accuracy run of the plan; nothing for a plan without one."""
    settings = read_record(plan / ACCURACY_CLIENT_FILE, ClientRun)
    return accuracy_findings(str(settings.tokenizer)) if settings else ()


def _unusable_modules() -> Mapping[str, str]:
    """Return the modules that cannot be imported here, with the reason."""
    unusable = {}
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module of another architecture may fail in any way
            unusable[name] = f"{type(error).__name__}: {error}"
    return unusable


def _ask(job: SlurmJob, folder: Path, temporary: Path, print_line: PrintLine) -> ArgumentAnswer | str:
    """Return the software's answer on the plan in `folder`, or why there is none.

    Every node index of the plan stands for this node.
    """
    plan, scratch = folder / PLAN_FOLDER, folder / "scratch"
    processes = ManagedProcesses(print_line, last=True)
    try:
        manifest, here = read_manifest(plan), job.nodes(1)
        if manifest.argument_check is None:
            return "the engine has nothing that validates arguments"
        scratch.mkdir(exist_ok=True)
        nodes = NodeAddresses(here.hosts * manifest.nodes, here.addresses * manifest.nodes)
        launcher = SrunLauncher(job, scratch, temporary)
        deployment = Deployment(manifest, nodes, launcher, processes.running, plan=plan, raw=folder / "raw")
        return ask_software(deployment, manifest.argument_check, print_line)
    except TuneError as error:
        return str(error)
    finally:
        processes.stop()
