"""Describe the parts of Dynamo that are the same for every real engine, in both of its generations.

dynamo_v0 (mid 2025) has etcd for discovery and NATS with JetStream for requests. dynamo_v1 (1.x) has etcd for
discovery, sends requests over TCP and events over ZeroMQ, so NATS is not needed.
Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); components/src/dynamo/frontend/
frontend_args.py (1.x).
"""

from __future__ import annotations

from tune.manifest.engine_signals import WorkerCounter
from tune.manifest.process import (
    HEAD_HOST,
    HEAD_NODE_IP,
    START_ETCD,
    Port,
    Process,
    ProcessRole,
    dynamo_program,
    log_path,
)
from tune.spec.cluster import ClusterFacts
from tune.spec.split import HEAD_NODE, WorkerPlacement
from tune.spec.trial import TrialSpec

_ENDPOINT = {"dynamo_endpoint": "generate"}

REQUESTS = WorkerCounter(name="dynamo_component_requests_total", labels=_ENDPOINT)
IN_FLIGHT = WorkerCounter(name="dynamo_component_inflight_requests", labels=_ENDPOINT)
"""What a worker has received, and what it has not yet answered to the end, of the endpoint that serves
requests. Source: Dynamo 1.x, lib/runtime/src/metrics/prometheus_names.rs."""

OVERRIDABLE = frozenset({"DYN_LOG", "DYN_SDK_DISABLE_ANSI_LOGGING"})
"""Variables of Dynamo that tune sets and a user may set otherwise: what Dynamo logs, and in which colours."""

QUIET_LOGS = "info,dynamo_runtime::pipeline::network=warn,dynamo_llm::http::service=warn"
"""Log levels of Dynamo 1.x (DYN_LOG). Without the two exceptions, every request, and every question whether
the deployment is ready, is a line in the frontend's log. Seen in Dynamo 1.6.1."""


FRONTEND_PARSERS: dict[str, tuple[str, ...]] = {"dynamo.frontend": ("dynamo.frontend.main:parse_args",)}
"""Parser of the frontend's command line. Source: Dynamo, components/frontend/src/dynamo/frontend/main.py (mid
2025); components/src/dynamo/frontend/main.py (1.x)."""


def system_port(spec: TrialSpec, placed: WorkerPlacement) -> int | None:
    """Return the port of a worker's /health and /metrics; None where the stack names no such port."""
    if spec.stack.system_port is None:
        return None
    earlier = spec.split.prefill_workers if placed.role == "decode" else 0
    return spec.stack.system_port + earlier + placed.index


def dynamo_environment(spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
    """Return the variables that frontend and workers share, beside those of the engine."""
    env = {
        "HEAD_NODE": HEAD_HOST,
        "HEAD_NODE_IP": HEAD_NODE_IP,
        "ETCD_ENDPOINTS": f"{HEAD_NODE_IP}:{spec.stack.etcd_client_port}",
        "MODEL_PATH": facts.model_path,
        "SERVED_MODEL_NAME": spec.model.served_name,
    }
    if spec.stack.dynamo == "v0":
        return env | {"NATS_SERVER": f"nats://{HEAD_NODE_IP}:{spec.stack.nats_port}"}
    return env | {
        "DYN_DISCOVERY_BACKEND": "etcd",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "DYN_LOG": QUIET_LOGS,
    }


def dynamo_services(spec: TrialSpec) -> tuple[Process, ...]:
    """Return etcd, and NATS before it where Dynamo needs it, on the head node."""
    stack = spec.stack
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
    if stack.dynamo == "v1":
        return started
    argv = ("nats-server", "-js", "-p", str(stack.nats_port))
    return (_on_head("nats", {}, argv, (Port(stack.nats_port, "stack.nats_port"),)), *started)


def dynamo_frontend(spec: TrialSpec, facts: ClusterFacts, env: dict[str, str]) -> Process:
    """Return Dynamo's OpenAI endpoint on the head node, under the environment `env`."""
    stack = spec.stack
    routing = ("--router-mode", stack.router_mode)
    python = dynamo_program(facts, "python3")
    argv = (python, "-m", "dynamo.frontend", *routing, "--http-port", str(stack.frontend_port))
    listens = (Port(stack.frontend_port, "stack.frontend_port"),)
    return _on_head("frontend", env, argv, listens, stack.frontend_port)


def _on_head(
    role: ProcessRole,
    env: dict[str, str],
    argv: tuple[str, ...],
    listens: tuple[Port, ...],
    metrics_port: int | None = None,
) -> Process:
    return Process(role, role, HEAD_NODE, (), env, argv, log_path(role), listens, metrics_port)
