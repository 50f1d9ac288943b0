"""Render frontend and workers of vLLM in Dynamo 1.x.

On one node the workers find each other through files in a folder of the attempt, and neither etcd nor NATS
runs; on several nodes through etcd, as Dynamo watches files on local disks alone. Requests travel over TCP,
events over ZeroMQ, the KV cache by NIXL.
Source: Dynamo 1.3.1, components/src/dynamo/vllm/args.py and backend_args.py, components/src/dynamo/common/
configuration/groups/runtime_args.py; vLLM 0.23.0, vllm/envs.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tune.engines.dynamo.dynamo_environment import QUIET_LOGS, system_port
from tune.engines.dynamo.dynamo_frontends import dynamo_frontends
from tune.engines.dynamo.dynamo_services import dynamo_services
from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_pools import vllm_settings
from tune.errors import ConfigurationError
from tune.manifest.process import (
    DISCOVERY_FOLDER,
    HEAD_NODE_IP,
    NODE_IP,
    PLAN_DIR,
    SCRATCH_DIR,
    Port,
    Process,
    dynamo_program,
    log_path,
)
from tune.spec.cluster import ClusterFacts
from tune.spec.engine_settings import own_fields
from tune.spec.split import ROLES, Role, WorkerPlacement
from tune.spec.trial import TrialSpec

MODEL_FOLDER = "model"
"""Folder among a plan's files with the model without weights."""

SIDE_CHANNEL_OFFSET = 1000
"""Distance of the port through which NIXL's connectors meet from a worker's system port. Chosen here."""

KV_TRANSFER = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"})
"""Value of --kv-transfer-config with which Dynamo's examples start both pools."""


def vllm_environment(spec: TrialSpec) -> dict[str, str]:
    """Return the variables that frontend and workers share."""
    discovery = (
        {"DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": f"{SCRATCH_DIR}/{DISCOVERY_FOLDER}"}
        if finds_by_files(spec)
        else {
            "DYN_DISCOVERY_BACKEND": "etcd",
            "ETCD_ENDPOINTS": f"{HEAD_NODE_IP}:{spec.stack.etcd_client_port}",
        }
    )
    return discovery | {
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "DYN_TCP_RPC_HOST": NODE_IP,
        "DYN_SYSTEM_HOST": NODE_IP,
        "DYN_LOG": QUIET_LOGS,
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def finds_by_files(spec: TrialSpec) -> bool:
    """Return whether the workers of `spec` find each other through files, as on one node."""
    return spec.hardware.nodes == 1


def vllm_services(spec: TrialSpec) -> tuple[Process, ...]:
    """Return etcd where workers are on several nodes, else nothing."""
    return () if finds_by_files(spec) else dynamo_services(spec)


def vllm_frontends(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Return Dynamo's OpenAI endpoints, each on the address of its node alone."""
    return dynamo_frontends(spec, facts, vllm_environment(spec), ("--http-host", NODE_IP))


def vllm_worker(spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
    """Return one worker, a process that starts one more for each of its GPUs.

    Raises ConfigurationError where the stack has no system port.
    """
    port = system_port(spec, placed)
    if port is None:
        raise ConfigurationError(
            "stack.system_port: found null, expected the first of one free port a worker."
        )
    name, node = f"{placed.role}_w{placed.index}", placed.nodes[0]
    engine = vllm_settings(spec.engine(placed.role))
    env = vllm_environment(spec) | {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in placed.gpus_on(node)),
        "DYN_SYSTEM_PORT": str(port),
    }
    listens = [Port(port, "stack.system_port")]
    if placed.role in ROLES:
        meets = port + SIDE_CHANNEL_OFFSET
        env |= {"VLLM_NIXL_SIDE_CHANNEL_HOST": NODE_IP, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(meets)}
        listens.append(Port(meets, f"stack.system_port + {SIDE_CHANNEL_OFFSET}"))
    argv = (
        *(dynamo_program(facts, "python3"), "-m", "dynamo.vllm", "--model", model_path(engine, facts)),
        *("--served-model-name", spec.model.served_name),
        *mode_arguments(placed.role),
        *engine_arguments(engine),
    )
    return Process(
        name, placed.role, node, placed.gpus, env, argv, log_path(name), tuple(listens), metrics_port=port
    )


def model_path(engine: VllmEngine, facts: ClusterFacts) -> str:
    """Return the folder of the checkpoint, or that of the plan where weights are random."""
    return f"{PLAN_DIR}/{MODEL_FOLDER}" if engine.load_format == "dummy" else facts.model_path


def mode_arguments(role: Role) -> tuple[str, ...]:
    """Return the arguments that say what of a request a worker serves: all of it without any."""
    if role == "aggregated":
        return ()
    return ("--disaggregation-mode", role, "--kv-transfer-config", KV_TRANSFER)


def engine_arguments(engine: VllmEngine) -> tuple[str, ...]:
    """Return the settings of a worker as arguments of vLLM, in the order of the settings."""
    names = [name for name in own_fields(VllmEngine) if name != "extra"]
    typed = {name: value for name in names if (value := getattr(engine, name)) is not None}
    return tuple(word for name, value in (typed | engine.extra).items() for word in _argument(name, value))


def _argument(name: str, value: Any) -> Iterator[str]:
    """Yield the words of one argument. `value` is a flag, a list, a mapping (as JSON), or plain.

    What stands behind a dot is a key below the argument and stays as it is.
    """
    head, dot, rest = name.partition(".")
    flag = f"{head.replace('_', '-')}{dot}{rest}"
    match value:
        case bool():
            yield f"--{flag}" if value else f"--no-{flag}"
        case list() | tuple():
            yield from (f"--{flag}", *(str(one) for one in value))
        case Mapping():
            yield from (f"--{flag}", json.dumps(value))
        case _:
            yield from (f"--{flag}", str(value))
