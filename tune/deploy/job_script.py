"""job.sbatch: a header of directives, job.sh, which is the same for all plans, and what is particular to one.

Source of the directives: NVIDIA's MLPerf Inference v5.1 submission, 18-node launch. Steps see every GPU of
the job (srun's default); a cluster that hands out GPUs as generic resources needs cluster.extra_sbatch to ask
for them, such as --gpus-per-node=4. Source: Slurm, srun(1), --gres.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tune.deploy.process import Process
from tune.deploy.shell import reject_line_break, with_env, word, words
from tune.errors import FixCommand
from tune.spec.cluster import ClusterFacts

_JOB_SH = Path(__file__).with_name("job.sh").read_text(encoding="utf-8")


def job_script(
    *,
    facts: ClusterFacts,
    nodes: int,
    services: Sequence[tuple[Process, int]],
    deployment: Sequence[Process],
    client: Process,
    ready: Sequence[str],
    exported: Mapping[str, str],
) -> str:
    """The text of job.sbatch. Each service stands with the port that shows it is up.

    Raises FixCommand where a value of `facts` cannot stand in a directive.
    """
    starts = [
        line
        for service, port in services
        for line in (
            _start("serve", service, exported),
            f'wait_until "$SERVICES_DEADLINE_S" "{service.name} listens on port {port}" port_open {port}',
        )
    ]
    functions = {
        "use_container": list(_container(facts, exported)),
        "start_services": starts,
        "start_workers": [_start("serve", process, exported) for process in deployment],
        "start_client": [_start("launch", client, exported)],
        "ask_ready": [words(ready)],
    }
    body = "\n".join(_function(name, lines) for name, lines in functions.items())
    return "\n".join([_header(facts, nodes), _JOB_SH, f"NODES_NEEDED={nodes}\n", body, "main\n"])


def _function(name: str, lines: Sequence[str]) -> str:
    return f"{name}() {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def _start(verb: str, process: Process, exported: Mapping[str, str]) -> str:
    own = {name: value for name, value in process.env.items() if exported.get(name) != value}
    ranked = "--mpi=pmix " if process.gpus else ""
    nodes = ",".join(str(node) for node in process.nodes)
    step = f"{verb} {word(process.name)} {word(process.log)} {nodes} {process.tasks} {ranked}"
    return f"{step}-- {with_env(own, process.argv)}"


def _header(facts: ClusterFacts, nodes: int) -> str:
    named = {
        "job-name": facts.job_name,
        "nodes": str(nodes),
        "partition": facts.partition,
        "account": facts.account,
        "qos": facts.qos,
        "reservation": facts.reservation,
        "time": facts.time_limit,
        "output": facts.output,
    }
    lines = ["#!/bin/bash"]
    for name, value in named.items():
        if value is not None:
            reject_line_break(f"cluster.{name.replace('-', '_')}", value)
            lines.append(f"#SBATCH --{name}={shlex.quote(value)}")
    lines += ["#SBATCH --container-remap-root"] * facts.container_remap_root
    lines += ["#SBATCH --container-mount-home"] * facts.container_mount_home
    for directive in facts.extra_sbatch:
        reject_line_break("cluster.extra_sbatch", directive)
        if not directive.startswith("-"):
            raise FixCommand(
                f"cluster.extra_sbatch: found {directive!r}, expected an option of sbatch (--exclusive)."
            )
        lines.append(f"#SBATCH {directive}")
    return "\n".join(lines) + "\n"


def _container(facts: ClusterFacts, exported: Mapping[str, str]) -> Iterator[str]:
    """pyxis options, so that a step runs in the image and sees plan, mounts and the shared environment."""
    yield "CONTAINER=()"
    if facts.container_image is None:
        return
    mounts = "".join(f",{mount}" for mount in facts.container_mounts)
    yield '[[ $PLAN_DIR != *[:,]* ]] || fail "$PLAN_DIR holds a colon or comma, which mounts are split at"'
    yield f"CONTAINER+=({shlex.quote(f'--container-image={facts.container_image}')})"
    yield f'CONTAINER+=(--container-mounts="$PLAN_DIR:$PLAN_DIR"{shlex.quote(mounts) if mounts else ""})'
    yield f"CONTAINER+=(--container-env={','.join(exported)})"
    yield from ["CONTAINER+=(--container-remap-root)"] * facts.container_remap_root
    yield from ["CONTAINER+=(--container-mount-home)"] * facts.container_mount_home
