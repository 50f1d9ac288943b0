"""Set the environment of Dynamo's processes.

Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); lib/runtime/src/config/
environment_names.rs (1.x).
"""

from __future__ import annotations

from tune.manifest.process import HEAD_HOST, HEAD_NODE_IP
from tune.spec.cluster import ClusterFacts
from tune.spec.split import WorkerPlacement
from tune.spec.trial import TrialSpec

OVERRIDABLE = frozenset({"DYN_LOG", "DYN_SDK_DISABLE_ANSI_LOGGING"})
"""Variables of Dynamo that tune sets and a user may set otherwise: what Dynamo logs, and in which colours."""

QUIET_LOGS = "info,dynamo_runtime::pipeline::network=warn,dynamo_llm::http::service=warn"
"""Log levels of Dynamo 1.x (DYN_LOG). Without the two exceptions, every request, and every question whether
the deployment is ready, is a line in the frontend's log. Seen in Dynamo 1.6.1."""


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
