"""Render a trial as a folder with a Slurm job that runs it without tune.

The folder holds the files of the engines, rank.sh and ready.py of the plan, client.sh, which sends the load,
and job.sbatch, which starts the same steps as an orchestrator of tune.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tune.deploy.job_script import directives, sbatch_options
from tune.deploy.plan import LaunchPlan
from tune.deploy.processes import frontend_urls
from tune.deploy.shell import quote_all
from tune.engines.registry import engine_of
from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, RAW_DIR, Process, address_of
from tune.manifest.process_manifest import ProcessManifest
from tune.manifest.srun_step import JOB_VARIABLES, KEPT_VARIABLES, WITHOUT_SLURM, srun_words
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec
from tune.workload.lengths import draw_lengths

JOB, CLIENT = "job.sbatch", "client.sh"
"""Files of the folder: the job, and the command that sends the load."""

STEP = "step"
"""First word of each line of job.sbatch that starts a server."""

_FUNCTIONS = Path(__file__).with_name("standalone_job.sh").read_text(encoding="utf-8")
_SERVICES = ("nats", "etcd")

_CLIENT = """#!/bin/bash
# Send the load of the trial with AIPerf, which Dynamo's images have, its lengths normal with the mean and the
# deviation of the trial's. Another client is as good: ENDPOINTS holds the addresses of the frontends between
# spaces, MODEL the name in requests, MODEL_PATH the checkpoint, $1 a folder for results.
set -euo pipefail
urls=()
for endpoint in $ENDPOINTS; do urls+=(--url "$endpoint"); done
exec aiperf profile --model "$MODEL" --tokenizer "$MODEL_PATH" "${{urls[@]}}" \\
    --endpoint-type {endpoint} --streaming {rate}\\
    --concurrency {most} --request-count {queries} \\
    --isl {isl} --isl-stddev {isl_sd} --osl {osl} --osl-stddev {osl_sd} --extra-inputs ignore_eos:true \\
    --random-seed {seed} --output-artifact-dir "$1"
"""
"""Source of the options: AIPerf, aiperf profile --help. Without a rate its requests are a closed loop of as
many users as --concurrency says (its Load Generator Options Reference)."""


def standalone_job(
    spec: TrialSpec,
    facts: ClusterFacts,
    plan: LaunchPlan,
    manifest: ProcessManifest,
    target_qps: float | None,
) -> dict[str, str | bytes]:
    """Return the files of the folder by their names.

    Parameters
    ----------
    spec, facts
        The trial, and the cluster that it is meant for.
    plan, manifest
        The plan of both.
    target_qps
        Rate at which client.sh sends, None for a closed loop.

    Returns
    -------
    dict[str, str | bytes]
        Text or bytes of each file.
    """
    engine_files = engine_of(spec).files(spec)
    return {
        JOB: _job(spec, facts, plan, manifest),
        CLIENT: _client(spec, target_qps),
        "ready.py": plan.files["ready.py"],
        RANK_SCRIPT: plan.files[RANK_SCRIPT],
        **engine_files,
        **plan.tables,
    }


def _job(spec: TrialSpec, facts: ClusterFacts, plan: LaunchPlan, manifest: ProcessManifest) -> str:
    options = sbatch_options(facts, spec.hardware.nodes, spec.hardware.gpus_per_node)
    filled: Mapping[str, object] = {
        "@KEPT@": " ".join((*KEPT_VARIABLES, *JOB_VARIABLES)),
        "@READY_S@": math.ceil(facts.deadlines.ready_s),
        "@STOP_S@": math.ceil(facts.deadlines.stop_s),
    }
    functions = _FUNCTIONS
    for name, value in filled.items():
        functions = functions.replace(name, str(value))
    lines = [*_addresses(spec), *_starts(spec, facts, plan, manifest)]
    return directives(options) + functions + "\n".join(lines) + "\n"


def _addresses(spec: TrialSpec) -> Iterator[str]:
    """Yield the lines that set the placeholders which do not depend on the process."""
    yield "export HEAD_NODE=${hosts[0]} HEAD_NODE_IP=${addresses[0]}"
    for node in range(1, min(spec.split.frontends, spec.hardware.nodes)):
        yield f"{address_of(node)[2:-1]}=${{addresses[{node}]}}"


def _starts(
    spec: TrialSpec, facts: ClusterFacts, plan: LaunchPlan, manifest: ProcessManifest
) -> Iterator[str]:
    """Yield the lines that start everything in order, wait for it, and run the client."""
    servers = [process for process in plan.processes if process.role != "client"]
    for process in servers:
        yield from _start(process, manifest, [*_environment(process), *_command(process)])
        if process.role in _SERVICES:
            yield from (f'await_port "$NODE_IP" {port.number}' for port in process.listens[:1])
    yield f"await_ready {quote_all(plan.readiness_command)}"
    (client,) = (process for process in plan.processes if process.role == "client")
    yield from _start(client, manifest, _client_command(spec, facts))
    yield "await_client"


def _start(process: Process, manifest: ProcessManifest, command: Sequence[str]) -> Iterator[str]:
    nodes = ",".join(map(str, process.nodes))
    words = srun_words(
        process,
        "",
        container=manifest.container,
        gpus_per_node=manifest.gpus_per_node,
        srun_options=manifest.srun_options,
        mpi=manifest.mpi,
    )
    placed = words.index("--nodelist=")
    passed_on = (name for name, value in manifest.srun_env.items() if value is None)
    passed = ",".join((*process.inherits, *passed_on)) or "-"
    own = [f"{name}={value}" for name, value in manifest.srun_env.items() if value is not None]
    before = quote_all([*own, *words[:placed]])
    yield f"at {process.node_index}"
    yield (
        f'{STEP} {process.name} {passed} {before} --nodelist="$(nodelist {nodes})" '
        f"{quote_all([*words[placed + 1 :], *command])}"
    )


def _environment(process: Process) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in process.env.items())] if process.env else []


def _command(process: Process) -> tuple[str, ...]:
    return (*(WITHOUT_SLURM if process.role == "frontend" else ()), *process.argv)


def _client_command(spec: TrialSpec, facts: ClusterFacts) -> list[str]:
    return [
        *("env", f"ENDPOINTS={' '.join(frontend_urls(spec))}", f"MODEL={spec.model.served_name}"),
        *(f"MODEL_PATH={facts.model_path}", "bash", f"{PLAN_DIR}/{CLIENT}", f"{RAW_DIR}/client"),
    ]


def _client(spec: TrialSpec, target_qps: float | None) -> str:
    """Return client.sh at a rate, or for the trial's users, with as many queries as such a run has."""
    load = spec.load if target_qps is None else spec.load.at(target_qps)
    prompts, answers = draw_lengths(load.dataset, load.dataset.samples, True, load.shuffle_seed)
    return _CLIENT.format(
        endpoint=load.api,
        rate="" if target_qps is None else f"--arrival-pattern poisson --request-rate {target_qps:g} ",
        most=load.concurrency or load.client_concurrency,
        queries=load.expected_queries,
        isl=round(float(prompts.mean())),
        isl_sd=round(float(prompts.std())),
        osl=round(float(answers.mean())),
        osl_sd=round(float(answers.std())),
        seed=load.shuffle_seed,
    )
