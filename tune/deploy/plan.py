"""Render a trial: everything that its launch writes and starts, as text. Nothing is launched here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tune.core.files import make_folder, open_atomic
from tune.deploy.check_description import argument_check, argument_check_process
from tune.deploy.checkpoint_facts import expected_checkpoint
from tune.deploy.evidence_process import EVIDENCE_SCRIPT, evidence_process
from tune.deploy.gpu_sample_process import gpu_sample_process
from tune.deploy.job_script import container_options, job_script
from tune.deploy.processes import deployment_processes, endpoint_urls, frontend_urls
from tune.deploy.shell import commands_text, environment_text, reject_unbindable
from tune.deploy.srun_options import step_options
from tune.engines.base import StepTiming
from tune.engines.registry import engine_of
from tune.manifest.argument_check import ARGUMENT_CHECK_FILE, ARGUMENT_CHECK_SCRIPT
from tune.manifest.process import HEAD_NODE_IP, PLAN_DIR, RANK_SCRIPT, Process
from tune.manifest.process_manifest import (
    ACCURACY_CLIENT_FILE,
    CALIBRATION_FILE,
    MANIFEST_FILE,
    ProcessManifest,
)
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.timed_rules import check_timed
from tune.spec.trial import TrialSpec

_SCRIPTS = {
    name: Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("ready.py", ARGUMENT_CHECK_SCRIPT, EVIDENCE_SCRIPT, RANK_SCRIPT)
}
"""Programs that run on the nodes, outside of tune's own environment."""


@dataclass(frozen=True)
class LaunchPlan:
    """Hold the files and processes of a launch.

    `files` maps relative path to text, `tables` relative path to bytes. `processes` are in the order in which
    they start, the client last. `readiness_command` exits 0 once every worker is registered
    (tune/deploy/ready.py). Node indices count from 0, the head node. Texts hold the placeholders of
    tune.manifest.process.PLACEHOLDERS.
    """

    files: Mapping[str, str]
    processes: tuple[Process, ...]
    readiness_command: tuple[str, ...]
    tables: Mapping[str, bytes] = field(default_factory=dict)


def render(spec: TrialSpec, facts: ClusterFacts) -> LaunchPlan:
    """Render the launch of `spec` on the cluster of `facts`: a function of its arguments alone.

    Raises ConfigurationError for what cannot be launched: a rack too small, an engine setting that the stack
    cannot express, a value that no command line or directive can hold.
    """
    _reject_unbindable(spec, facts)
    adapter = engine_of(spec)
    command, processes = _readiness_command(spec), deployment_processes(spec, facts)
    check = argument_check(spec, facts, processes)
    check_process = argument_check_process(check, processes)
    gpus_per_node = spec.hardware.gpus_per_node
    manifest = ProcessManifest(
        nodes=spec.hardware.nodes,
        processes=processes,
        readiness_command=command,
        deadlines=facts.deadlines,
        endpoint_urls=endpoint_urls(spec),
        image=facts.container_image,
        container=container_options(facts, mounts_scratch=adapter.needs_scratch or spec.stack.shares_files),
        keeps_containers=facts.container_image is not None and facts.container_keep,
        gpus_per_node=gpus_per_node if facts.gpus_per_node_option else None,
        keeps_processes=_keeps_processes(spec),
        engine=adapter.signals,
        srun_env=facts.srun_env,
        srun_options=step_options(facts),
        mpi=facts.mpi,
        argument_check=check_process,
        evidence=check_process and evidence_process(check_process, spec.hardware.nodes, check.packages),
        gpu_sample=gpu_sample_process(processes, spec.hardware.nodes),
        checkpoint=expected_checkpoint(spec, facts),
    )
    files = dict(adapter.files(spec)) | {
        "client.json": client_json(spec),
        **_accuracy_files(spec, facts),
        "environment": environment_text(adapter.environment(spec, facts)),
        "commands": commands_text(processes),
        MANIFEST_FILE: manifest.text(),
        **_SCRIPTS,
        ARGUMENT_CHECK_FILE: check.model_dump_json(indent=1) + "\n",
        "job.sbatch": job_script(facts, spec.hardware.nodes, gpus_per_node),
    }
    calibration = facts.calibration
    if spec.load.mode == "capacity" and calibration is not None and not check_timed(spec, calibration):
        files |= {CALIBRATION_FILE: calibration.model_dump_json(indent=1) + "\n"}
    return LaunchPlan(files, processes, command, adapter.tables(spec, facts, _time_steps))


def _reject_unbindable(spec: TrialSpec, facts: ClusterFacts) -> None:
    reject_unbindable("cluster.model_path", facts.model_path)
    reject_unbindable("cluster.container_image", facts.container_image or "")
    reject_unbindable("cluster.container_workdir", facts.container_workdir or "")
    for mount in facts.container_mounts:
        reject_unbindable("cluster.container_mounts", mount)
    reject_unbindable("model.served_name", spec.model.served_name)


def _time_steps(spec: TrialSpec, calibration: Calibration) -> StepTiming:
    from tune.deploy.step_timing import time_steps  # noqa: PLC0415  (numba takes seconds)

    return time_steps(spec, calibration)


def _keeps_processes(spec: TrialSpec) -> bool:
    """Return whether processes may serve another trial: one that reuses KV blocks would know its prompts."""
    reuse = any(pool.engine.reuses_kv_blocks for pool in spec.pools)
    return spec.stack.workers_may_leave and not reuse


def _accuracy_files(spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
    """Return the settings of the accuracy run; none for a trial without one."""
    if not spec.load.accuracy:
        return {}
    return {ACCURACY_CLIENT_FILE: client_json(spec, facts.tokenizer_path)}


def client_json(spec: TrialSpec, tokenizer: str | None = None) -> str:
    """Return the settings that `tune.client` reads; with a `tokenizer` those of the accuracy run."""
    settings = {
        "served_model_name": spec.model.served_name,
        "load": spec.load.model_dump(mode="json"),
        "slo": spec.slo.model_dump(mode="json"),
        "max_seq_len": spec.decode.max_sequence_tokens,
        "nvext": spec.stack.dynamo == "v0",
        "frontend_choice": spec.split.frontend_choice,
    }
    if tokenizer is not None:
        settings["tokenizer"] = tokenizer
    return json.dumps(settings, indent=2) + "\n"


def _readiness_command(spec: TrialSpec) -> tuple[str, ...]:
    """Return the command line of ready.py, which counts in etcd where /health lists no prefill worker."""
    stack = spec.stack
    argv = ["python3", f"{PLAN_DIR}/ready.py", "--model", spec.model.served_name]
    argv += [word for url in frontend_urls(spec) for word in ("--frontend", url)]
    if stack.dynamo == "v0":
        argv += ["--etcd", f"http://{HEAD_NODE_IP}:{stack.etcd_client_port}"]
    names = engine_of(spec).components(spec)
    argv += [word for pool in spec.pools for word in ("--expect", f"{names[pool.role]}={pool.workers}")]
    return tuple(argv)


def write_plan(plan: LaunchPlan, folder: Path) -> None:
    """Write the plan's files into `folder`, each under a temporary name first; make the folder.

    Raises ConfigurationError where one cannot be written, ResumableError where the disk is full.
    """
    make_folder(folder)
    encoded = {name: text.encode() for name, text in plan.files.items()}
    for name, content in (encoded | dict(plan.tables)).items():
        with open_atomic(folder / name) as file:
            file.write(content)
