"""Which processes a deployment is made of, in both generations of Dynamo; with mock engines: mock_processes.

dynamo_v0 (mid 2025): etcd for discovery, NATS with JetStream for requests; the worker that answers first
relays the other's stream, and a flag says which one that is.
dynamo_v1 (1.x): etcd for discovery, requests over TCP, events over ZeroMQ, so NATS is not needed; the
frontend routes, and there is no such flag.
Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); components/src/dynamo/frontend/
frontend_args.py and components/src/dynamo/trtllm/backend_args.py (1.x).
"""

from __future__ import annotations

from dataclasses import replace

from tune.deploy.mock_processes import mock_env, mock_frontend, mock_services, mock_worker
from tune.deploy.process import (
    HEAD_NODE,
    HEAD_NODE_IP,
    PLAN_DIR,
    RAW_DIR,
    START_ETCD,
    Port,
    Process,
    ProcessRole,
    dynamo_program,
    log_path,
)
from tune.errors import ConfigurationError
from tune.spec.cluster import ClusterFacts
from tune.spec.split import WorkerPlacement, place_workers
from tune.spec.trial import PROBE_FOLDER, TrialSpec

HEAD = 0


def common_env(spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
    """The environment that frontend and workers share."""
    if spec.stack.mocked:
        return mock_env(spec)
    env = {
        "HEAD_NODE": HEAD_NODE,
        "HEAD_NODE_IP": HEAD_NODE_IP,
        "ETCD_ENDPOINTS": f"{HEAD_NODE_IP}:{spec.stack.etcd_client_port}",
        "MODEL_PATH": facts.model_path,
        "SERVED_MODEL_NAME": spec.model.served_name,
    }
    if spec.stack.name == "dynamo_v0":
        return env | {
            "NATS_SERVER": f"nats://{HEAD_NODE_IP}:{spec.stack.nats_port}",
            "DISAGGREGATION_STRATEGY": spec.split.disaggregation_strategy,
            # srun sets nothing for the KV transceiver; start_trtllm_worker.sh chooses UCX.
            "TRTLLM_USE_UCX_KVCACHE": "1",
        }
    return env | {
        "DYN_DISCOVERY_BACKEND": "etcd",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
    }


def services(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """What must answer before anything of Dynamo starts."""
    stack = spec.stack
    if stack.mocked:
        return mock_services(spec, facts)
    peer = f"http://127.0.0.1:{stack.etcd_peer_port}"
    etcd = (
        "--listen-client-urls",
        f"http://0.0.0.0:{stack.etcd_client_port}",
        "--advertise-client-urls",
        f"http://{HEAD_NODE_IP}:{stack.etcd_client_port}",
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        f"default={peer}",
    )
    listens = (
        Port(stack.etcd_client_port, "stack.etcd_client_port"),
        Port(stack.etcd_peer_port, "stack.etcd_peer_port"),
    )
    started = (_on_head("etcd", {}, ("bash", "-c", START_ETCD, "etcd", *etcd), listens),)
    if stack.name != "dynamo_v0":
        return started
    argv = ("nats-server", "-js", "-p", str(stack.nats_port))
    return (_on_head("nats", {}, argv, (Port(stack.nats_port, "stack.nats_port"),)), *started)


def frontend(spec: TrialSpec, facts: ClusterFacts) -> Process:
    """Dynamo's OpenAI endpoint on the head node."""
    stack = spec.stack
    if stack.mocked:
        return mock_frontend(spec, facts)
    routing = ("--router-mode", stack.router_mode)
    python = dynamo_program(facts, "python3")
    argv = (python, "-m", "dynamo.frontend", *routing, "--http-port", str(stack.frontend_port))
    listens = (Port(stack.frontend_port, "stack.frontend_port"),)
    process = _on_head("frontend", common_env(spec, facts), argv, listens)
    return replace(process, metrics_port=stack.frontend_port)


def workers(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Every prefill worker, then every decode worker. Raises ConfigurationError when the rack is too small."""
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    if placed is None:
        raise ConfigurationError(
            f"split: found {spec.split.label} with {spec.prefill.gpus} and {spec.decode.gpus} GPUs a worker, "
            f"expected workers that fit {spec.hardware.nodes} nodes x {spec.hardware.gpus_per_node} GPUs. "
            "Use fewer or smaller workers, or more nodes."
        )
    if spec.stack.mocked:
        return tuple(mock_worker(spec, facts, worker) for worker in placed)
    common = common_env(spec, facts)
    return tuple(_worker(spec, facts, worker, common) for worker in placed)


def endpoint_url(spec: TrialSpec) -> str:
    """Where the frontend answers, for whoever asks on the head node."""
    return f"http://{HEAD_NODE_IP}:{spec.stack.frontend_port}/v1"


def client(spec: TrialSpec) -> Process:
    """The load client. It runs beside the frontend, outside any container."""
    argv = (
        *("python3", "-m", "tune.client", f"{PLAN_DIR}/client.json"),
        *("--endpoint", endpoint_url(spec), "--out", f"{RAW_DIR}/{PROBE_FOLDER}"),
    )
    return _on_head("client", {}, argv)


def client_of(client: Process, probe: str) -> Process:
    """`client` of a plan, asked what RAW_DIR/`probe`/client.json says; its record goes there too."""
    named = {f"{PLAN_DIR}/client.json": f"{RAW_DIR}/{probe}/client.json"}
    named |= {f"{RAW_DIR}/{PROBE_FOLDER}": f"{RAW_DIR}/{probe}"}
    argv = tuple(named.get(word, word) for word in client.argv)
    return replace(client, argv=argv, log=f"{client.log.removesuffix('.out')}_{probe}.out")


def _on_head(
    role: ProcessRole, env: dict[str, str], argv: tuple[str, ...], listens: tuple[Port, ...] = ()
) -> Process:
    return Process(role, role, HEAD, (), env, argv, log_path(role), listens)


def _worker(spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement, common: dict[str, str]) -> Process:
    name, node = f"{placed.role}_w{placed.index}", placed.nodes[0]
    config = f"{PLAN_DIR}/{placed.role}.yaml"
    env = common | {"DISAGGREGATION_MODE": placed.role, "ENGINE_CONFIG": config}
    visible = placed.gpus_on(node)
    if len(visible) < spec.hardware.gpus_per_node:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in visible)
    argv: tuple[str, ...] = (
        *(dynamo_program(facts, name) for name in ("trtllm-llmapi-launch", "python3")),
        *("-m", "dynamo.trtllm"),
        *("--model-path", facts.model_path, "--served-model-name", spec.model.served_name),
        *("--extra-engine-args", config, "--disaggregation-mode", placed.role),
    )
    if spec.stack.name == "dynamo_v0":
        argv += ("--disaggregation-strategy", spec.split.disaggregation_strategy)
    return Process(name, placed.role, node, placed.gpus, env, argv, log_path(name))
