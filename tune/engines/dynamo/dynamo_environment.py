"""Set the environment of Dynamo's processes.

Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); lib/runtime/src/config/
environment_names.rs (1.x).
"""

from __future__ import annotations

from tune.manifest.process import DISCOVERY_FOLDER, HEAD_HOST, HEAD_NODE_IP, SCRATCH_DIR
from tune.spec.cluster import ClusterFacts
from tune.spec.split import WorkerPlacement
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec

OVERRIDABLE = frozenset({"DYN_LOG", "DYN_SDK_DISABLE_ANSI_LOGGING"})
"""Variables of Dynamo that tune sets and a user may set otherwise: what Dynamo logs, and in which colours."""

_QUIET_MODULES = (
    "dynamo_runtime::pipeline::network",
    "dynamo_llm::http::service",
    "dynamo_kv_router::scheduling",
    "dynamo_llm::kv_router",
)
QUIET_LOGS = ",".join(("info", *(f"{module}=warn" for module in _QUIET_MODULES)))
"""Log levels of Dynamo (DYN_LOG). Without the exceptions, every request, every choice of a kv router and
every question whether the deployment is ready is a line in the frontend's log. Seen in Dynamo 1.6.1, but for
the last exception, which is for kv routers before; it was not run. With a kv router of 1.6.1 two lines a
request stay: its runtime logs the target request_span whatever DYN_LOG says (lib/runtime/src/logging.rs)."""


def system_port(spec: TrialSpec, placed: WorkerPlacement) -> int | None:
    """Return the port of a worker's /health and /metrics; None where the stack names no such port."""
    if spec.stack.system_port is None:
        return None
    roles = spec.split.roles
    earlier = sum(spec.split.workers(role) for role in roles[: roles.index(placed.role)])
    return spec.stack.system_port + earlier + placed.index


def opens_system_port(stack: Stack, port: int) -> dict[str, str]:
    """Return the variables with which a worker opens its system port.

    Before 0.7 the port alone opens nothing. Source: Dynamo, lib/runtime/src/config.rs and distributed.rs (mid
    2025); pull request 4082 (2025-11-04). Seen in the runtimes 0.4.0 and 0.6.1, and that 0.7.0 needs no more;
    the runtime 0.3.2 has neither variable.
    """
    switch = {"DYN_SYSTEM_ENABLED": "true"} if stack.dynamo == "v0" else {}
    return switch | {"DYN_SYSTEM_PORT": str(port)}


def dynamo_environment(spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
    """Return the variables that frontend and workers share, beside those of the engine."""
    stack = spec.stack
    env = {
        "HEAD_NODE": HEAD_HOST,
        "HEAD_NODE_IP": HEAD_NODE_IP,
        **discovery_address(stack),
        "MODEL_PATH": facts.model_path,
        "SERVED_MODEL_NAME": spec.model.served_name,
    }
    if stack.needs_nats:
        env |= {"NATS_SERVER": nats_url(stack)}
    env |= {"DYN_LOG": QUIET_LOGS}
    if stack.dynamo == "v1":
        env |= planes(stack)
    if stack.generation == "dynamo_v1":
        env |= {"DYN_EVENT_PLANE": "nats" if stack.needs_nats else "zmq"}
    return env


def discovery_address(stack: Stack) -> dict[str, str]:
    """Return the variable that says where processes find each other.

    Source: Dynamo 1.6.1, lib/runtime/src/config/environment_names.rs.
    """
    if stack.shares_files:
        return {"DYN_FILE_KV": f"{SCRATCH_DIR}/{DISCOVERY_FOLDER}"}
    return {"ETCD_ENDPOINTS": f"{HEAD_NODE_IP}:{stack.etcd_client_port}"}


def planes(stack: Stack) -> dict[str, str]:
    """Return the variables that name discovery and request plane; versions that do not know one ignore it."""
    backend = "file" if stack.shares_files else "etcd"
    return {"DYN_DISCOVERY_BACKEND": backend, "DYN_REQUEST_PLANE": stack.requests_over}


def nats_url(stack: Stack) -> str:
    """Return the URL of the NATS server."""
    return f"nats://{HEAD_NODE_IP}:{stack.nats_port}"
