"""A trial rendered: everything that its launch writes and starts, as text. Nothing is launched here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tune.deploy.job_script import job_script
from tune.deploy.launch import LAUNCH_FILE, Launch
from tune.deploy.mock_processes import LOOPBACK
from tune.deploy.process import HEAD_NODE_IP, PLAN_DIR, Process
from tune.deploy.processes import client, common_env, frontend, services, workers
from tune.deploy.shell import commands_text, environment_text, reject_unbindable
from tune.engines import engine_yaml
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

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

    tune.mock.plan.render_plan adds the tables that mock engines read.
    Raises FixCommand for what cannot be launched: a rack too small, an engine setting that the stack has no
    word for, a value that no command line or directive can hold.
    """
    reject_unbindable("cluster.model_path", facts.model_path)
    reject_unbindable("model.served_name", spec.model.served_name)
    exported = common_env(spec, facts)
    first = services(spec, facts)
    deployment = (frontend(spec, facts), *workers(spec, facts))
    load = client()
    ready = _ready(spec)
    processes = (*first, *deployment, load)
    waits = tuple((service, service.listens[0].number) for service in first)
    launch = Launch(nodes=spec.hardware.nodes, processes=processes, ready=ready, deadlines=facts.deadlines)
    engines = {} if spec.stack.mocked else _engine_files(spec)
    files = engines | {
        "client.json": client_json(spec),
        "environment": environment_text(exported),
        "commands": commands_text(processes),
        LAUNCH_FILE: launch.text(),
        "ready.py": _READY_PY,
        "job.sbatch": job_script(
            facts=facts,
            nodes=spec.hardware.nodes,
            services=waits,
            deployment=deployment,
            client=load,
            ready=ready,
            exported=exported,
        ),
    }
    return LaunchPlan(files, processes, ready)


def _engine_files(spec: TrialSpec) -> dict[str, str]:
    return {
        "prefill.yaml": engine_yaml(spec.prefill, spec.stack.engine_yaml),
        "decode.yaml": engine_yaml(spec.decode, spec.stack.engine_yaml),
    }


def client_json(spec: TrialSpec) -> str:
    """What `tune.client` is asked. The endpoint is on loopback: the client runs beside the frontend."""
    asked = {
        "endpoint_url": f"http://127.0.0.1:{spec.stack.frontend_port}/v1",
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
    frontend_host = LOOPBACK if stack.mocked else HEAD_NODE_IP
    argv += ["--frontend", f"http://{frontend_host}:{stack.frontend_port}"]
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
