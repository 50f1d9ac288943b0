"""A trial rendered: everything that its launch writes and starts, as text. Nothing is launched here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tune.deploy.job_script import container_options, job_script
from tune.deploy.process import HEAD_NODE_IP, PLAN_DIR, Process
from tune.deploy.process_manifest import MANIFEST_FILE, ProcessManifest
from tune.deploy.processes import client, common_env, endpoint_url, frontend, services, workers
from tune.deploy.shell import commands_text, environment_text, reject_unbindable
from tune.engines import engine_yaml
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

CALIBRATION_FILE = "calibration.json"
"""What the forecast of a search for the highest rate begins with."""

_READY_PY = Path(__file__).with_name("ready.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class LaunchPlan:
    """`files`: relative path -> text; `tables`: relative path -> bytes. `processes`: in the order in which
    they start, the client last. `ready`: exits 0 once every worker is registered (tune/deploy/ready.py).

    Node indices count from 0, the head node. Placeholders: tune.deploy.process.PLACEHOLDERS.
    """

    files: Mapping[str, str]
    processes: tuple[Process, ...]
    ready: tuple[str, ...]
    tables: Mapping[str, bytes] = field(default_factory=dict)


def render(spec: TrialSpec, facts: ClusterFacts) -> LaunchPlan:
    """The launch of `spec` on the cluster of `facts`, all of it text; a function of its arguments alone.

    tune.engines.dynamo_mocker.plan.render_plan adds the tables that mock engines read.
    Raises ConfigurationError for what cannot be launched: a rack too small, an engine setting that the stack has no
    word for, a value that no command line or directive can hold.
    """
    reject_unbindable("cluster.model_path", facts.model_path)
    reject_unbindable("cluster.container_image", facts.container_image or "")
    reject_unbindable("cluster.container_workdir", facts.container_workdir or "")
    for mount in facts.container_mounts:
        reject_unbindable("cluster.container_mounts", mount)
    reject_unbindable("model.served_name", spec.model.served_name)
    ready = _ready(spec)
    processes = (*services(spec, facts), frontend(spec, facts), *workers(spec, facts), client(spec))
    gpus_per_node = spec.hardware.gpus_per_node
    launch = ProcessManifest(
        nodes=spec.hardware.nodes,
        processes=processes,
        ready=ready,
        deadlines=facts.deadlines,
        endpoint_url=endpoint_url(spec),
        container=container_options(facts, mocked=spec.stack.mocked),
        keeps_containers=facts.container_image is not None and facts.container_keep,
        gpus_per_node=gpus_per_node if facts.gpus_per_node_option else None,
        keeps_processes=_keeps_processes(spec),
    )
    engines = {} if spec.stack.mocked else _engine_files(spec)
    files = engines | {
        "client.json": client_json(spec),
        "environment": environment_text(common_env(spec, facts)),
        "commands": commands_text(processes),
        MANIFEST_FILE: launch.text(),
        "ready.py": _READY_PY,
        "job.sbatch": job_script(facts, spec.hardware.nodes, gpus_per_node),
    }
    if spec.load.mode == "capacity" and facts.calibration is not None:
        files |= {CALIBRATION_FILE: facts.calibration.model_dump_json(indent=1) + "\n"}
    return LaunchPlan(files, processes, ready)


def _engine_files(spec: TrialSpec) -> dict[str, str]:
    return {
        "prefill.yaml": engine_yaml(spec.prefill, spec.stack.engine_yaml),
        "decode.yaml": engine_yaml(spec.decode, spec.stack.engine_yaml),
    }


def _keeps_processes(spec: TrialSpec) -> bool:
    """An engine that reuses KV blocks would know the prompts of the trial before."""
    reuse = (engine.kv_cache_config.enable_block_reuse for engine in (spec.prefill, spec.decode))
    return spec.stack.keeps_processes and not any(reuse)


def client_json(spec: TrialSpec) -> str:
    """What `tune.client` is asked."""
    asked = {
        "served_model_name": spec.model.served_name,
        "load": spec.load.model_dump(mode="json"),
        "slo": spec.slo.model_dump(mode="json"),
        "max_seq_len": spec.decode.max_seq_len,
        "nvext": spec.stack.name == "dynamo_v0",
    }
    return json.dumps(asked, indent=2) + "\n"


def _ready(spec: TrialSpec) -> tuple[str, ...]:
    """Components that workers register as: by who answers first in dynamo_v0, by role in dynamo_v1.

    Source: Dynamo, components/backends/trtllm/src/dynamo/trtllm/utils/trtllm_utils.py (mid 2025);
    components/src/dynamo/trtllm/args.py (1.x; decode was tensorrt_llm before it was backend).
    """
    stack, split = spec.stack, spec.split
    argv = ["python3", f"{PLAN_DIR}/ready.py", "--model", spec.model.served_name]
    argv += ["--frontend", f"http://{HEAD_NODE_IP}:{stack.frontend_port}"]
    if stack.name == "dynamo_v0":
        argv += ["--etcd", f"http://{HEAD_NODE_IP}:{stack.etcd_client_port}"]
        prefill, decode = "tensorrt_llm", "tensorrt_llm_next"
        if split.disaggregation_strategy == "decode_first":
            prefill, decode = decode, prefill
    else:
        prefill, decode = "prefill", "backend,tensorrt_llm"
    argv += ["--expect", f"{prefill}={split.prefill_workers}", "--expect", f"{decode}={split.decode_workers}"]
    return tuple(argv)


def write_plan(plan: LaunchPlan, folder: Path) -> None:
    """Write the plan's files into `folder`, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = {name: text.encode() for name, text in plan.files.items()}
    for name, content in (encoded | dict(plan.tables)).items():
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
