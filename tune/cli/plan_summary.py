"""Summarise a launch plan: where its processes start, what they need, how long a trial takes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from tune.deploy.plan import LaunchPlan
from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, Process
from tune.manifest.process_manifest import MANIFEST_FILE, ProcessManifest
from tune.orchestrator.launcher import ResolvedProcess
from tune.orchestrator.slurm.srun import step_command
from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.cluster import ClusterFacts
from tune.spec.settings import Settings
from tune.spec.slurm_time import time_limit_s
from tune.study.budget import forecast_gpu_hours

_BASH_COMMAND = 3
"""Position of the program in `bash -c SCRIPT PROGRAM`, where the script runs it as $0."""


def summarise_plan(plan: LaunchPlan, settings: Settings) -> str:
    """Return lines on a plan: nodes and GPUs of its processes and, on Slurm, what its job takes."""
    lines = [*_placed(plan.processes)]
    if BACKEND_DECLARATIONS[settings.cluster.kind].capabilities.detached:
        lines += ["", *_steps(plan), *_needs(plan.processes, settings.cluster), *_time(settings)]
    return "\n".join(lines)


def _placed(processes: Sequence[Process]) -> Iterator[str]:
    """Yield node and GPUs of each process."""
    for process in processes:
        gpus = " ".join(f"{node}:{gpu}" for node, gpu in process.gpus) or "-"
        yield f"node {process.node_index:>2}  {process.name:<12}  node:gpu {gpus}"


def _steps(plan: LaunchPlan) -> Iterator[str]:
    """Yield the srun of the first process of each role, without the command that follows."""
    manifest = ProcessManifest.model_validate_json(plan.files[MANIFEST_FILE])
    seen: set[str] = set()
    for process in plan.processes:
        if process.role in seen:
            continue
        seen.add(process.role)
        hosts = tuple(f"NODE{index}" for index in process.nodes)
        resolved = ResolvedProcess(
            process,
            hosts,
            (),
            {},
            Path(process.log),
            manifest.container,
            manifest.gpus_per_node,
            manifest.srun_env,
            manifest.srun_options,
            manifest.mpi,
        )
        yield f"srun      {process.name}: {shlex.join(step_command(resolved))} ..."
    yield "          ... is the process' line in the file commands"


def _needs(processes: Sequence[Process], facts: ClusterFacts) -> Iterator[str]:
    """Yield the programs and Python modules that the image, or every node, has to have."""
    programs = dict.fromkeys(
        name for process in processes if process.role != "client" for name in _programs(process.argv)
    )
    where = "the nodes" if facts.container_image is None else facts.container_image
    yield f"needs     on {where}: {', '.join(programs)}"
    yield f"          on the nodes: {', '.join(dict.fromkeys(_programs(_client(processes).argv)))}"
    if facts.container_image is None:
        yield "image     none (cluster.container_image): steps run on the nodes as they are"


def _client(processes: Sequence[Process]) -> Process:
    """Return the load client, which runs outside of the image."""
    return next(process for process in processes if process.role == "client")


def _programs(argv: Sequence[str]) -> Iterator[str]:
    """Yield the programs that a command line runs: launchers, Python with its module, or another program."""
    if argv[:2] == ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}"):
        argv = argv[4:]
    if argv[0] == "bash":
        yield argv[_BASH_COMMAND]
        return
    module = next((i for i, word in enumerate(argv) if word == "-m" and argv[i - 1].endswith("python3")), 0)
    if module:
        yield from dict.fromkeys(argv[: module - 1][i] for i in (0, -1) if module > 1)
        yield f"{argv[module - 1]} with {argv[module + 1]}"
        return
    yield argv[0]


def _time(settings: Settings) -> Iterator[str]:
    """Yield how long a trial takes, beside the limit of its job."""
    hours = forecast_gpu_hours(settings, 1) / settings.hardware.gpus
    limit_s = time_limit_s(settings.cluster.time_limit) or math.inf
    end = f"ends after {limit_s / 60:.0f} min" if math.isfinite(limit_s) else "has no time limit"
    line = f"duration  about {hours * 60:.0f} min a trial; the job {end}"
    if hours * 3600 > limit_s:
        line += ": too short (cluster.time_limit)"
    yield line
