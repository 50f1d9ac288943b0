"""Render the options of a Slurm job, for tune itself and for job.sbatch, which is submitted by hand.

Source of the directives: NVIDIA's MLPerf Inference v5.1 submission, 18-node launch; Slurm, sbatch(1).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Literal

from tune.deploy.extra_sbatch import parse_extra_option
from tune.deploy.shell import reject_line_break
from tune.manifest.process import PLAN_DIR, SCRATCH_DIR
from tune.spec.cluster import ClusterFacts

Options = dict[str, str | int | Literal[True]]

STOP_SIGNAL = "USR2"
"""Signal that Slurm sends before the time limit; `B:` sends it to the batch script alone."""

_BY_HAND = """
# By hand: cd HERE && sbatch job.sbatch, where the nodes see this folder. The attempt is ../raw/<job id>.
# TUNE_PYTHON is a Python that has tune.
exec "${{TUNE_PYTHON:-{python}}}" -m tune.orchestrator "$SLURM_SUBMIT_DIR/../raw/$SLURM_JOB_ID" --slurm
"""


def sbatch_options(facts: ClusterFacts, nodes: int, gpus_per_node: int) -> Options:
    """Return every option of sbatch except the path of its output.

    Parameters
    ----------
    facts
        The cluster.
    nodes
        Nodes of the job.
    gpus_per_node
        GPUs of each node, requested where they are generic resources.

    Returns
    -------
    Value of each option by its name without dashes; True for an option without a value.

    Raises
    ------
    ConfigurationError
        Where a value of `facts` cannot stand in a directive.
    """
    named: dict[str, str | int | None] = {
        "job-name": facts.job_name,
        "nodes": nodes,
        "partition": facts.partition,
        "account": facts.account,
        "qos": facts.qos,
        "reservation": facts.reservation,
        "time": facts.time_limit,
        "signal": f"B:{STOP_SIGNAL}@{facts.signal_s}",
        "exclude": ",".join(facts.exclude) or None,
        "gpus-per-node": gpus_per_node if facts.gpus_per_node_option else None,
    }
    options: Options = {name: value for name, value in named.items() if value is not None}
    options["no-requeue"] = True
    if facts.exclusive:
        options["exclusive"] = True
    for name, value in options.items():
        reject_line_break(f"cluster.{name.replace('-', '_')}", str(value))
    for directive in facts.extra_sbatch:
        name, value = parse_extra_option(directive, options)
        options[name] = value
    return options


def job_script(facts: ClusterFacts, nodes: int, gpus_per_node: int) -> str:
    """Return the text of job.sbatch. Raises ConfigurationError where a directive cannot hold a value."""
    reject_line_break("cluster.output", facts.output)
    options = sbatch_options(facts, nodes, gpus_per_node) | {"output": facts.output}
    return directives(options) + _BY_HAND.format(python=facts.python or "python3")


def directives(options: Options) -> str:
    """Return the beginning of a job's script: its interpreter and its options."""
    lines = [_directive(name, value) for name, value in options.items()]
    return "\n".join(["#!/bin/bash", *lines]) + "\n"


def _directive(name: str, value: str | int | Literal[True]) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"


def container_options(facts: ClusterFacts, *, mounts_scratch: bool) -> tuple[str, ...]:
    """Return pyxis' options of a step that runs in the image and sees the plan and the mounts.

    They are empty without an image. With `mounts_scratch` the step sees SCRATCH_DIR too.
    """
    return tuple(_container(facts, mounts_scratch))


def _container(facts: ClusterFacts, mounts_scratch: bool) -> Iterator[str]:
    if facts.container_image is None:
        return
    own = [f"{PLAN_DIR}:{PLAN_DIR}", *[f"{SCRATCH_DIR}:{SCRATCH_DIR}"] * mounts_scratch]
    yield f"--container-image={facts.container_image}"
    yield f"--container-mounts={','.join([*own, *facts.container_mounts])}"
    if facts.container_workdir is not None:
        yield f"--container-workdir={facts.container_workdir}"
    yield from ["--container-remap-root"] * facts.container_remap_root
    yield from ["--container-mount-home"] * facts.container_mount_home
