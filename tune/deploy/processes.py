"""List the processes of a deployment in the order in which they start; its engine describes most of them."""

from __future__ import annotations

from tune.engines.registry import engine_of
from tune.errors import ConfigurationError
from tune.manifest.process import HEAD_NODE_IP, PLAN_DIR, RAW_DIR, Process, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.split import HEAD_NODE, place_workers
from tune.spec.trial import PROBE_FOLDER, TrialSpec


def deployment_processes(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Return services, frontend, prefill workers, decode workers and the client.

    Raises ConfigurationError where the rack is too small, or the engine cannot be launched.
    """
    adapter = engine_of(spec)
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    if placed is None:
        raise ConfigurationError(
            f"split: found {spec.split.label} with {spec.prefill.gpus} and {spec.decode.gpus} GPUs a worker, "
            f"expected workers that fit {spec.hardware.nodes} nodes x {spec.hardware.gpus_per_node} GPUs. "
            "Use fewer or smaller workers, or more nodes."
        )
    return (
        *adapter.services(spec, facts),
        adapter.frontend(spec, facts),
        *(adapter.worker(spec, facts, worker) for worker in placed),
        _client(spec),
    )


def endpoint_url(spec: TrialSpec) -> str:
    """Return where the frontend answers, for a client on the head node."""
    return f"http://{HEAD_NODE_IP}:{spec.stack.frontend_port}/v1"


def _client(spec: TrialSpec) -> Process:
    """Return the load client, which runs beside the frontend, outside any container."""
    argv = (
        *("python3", "-m", "tune.client", f"{PLAN_DIR}/client.json"),
        *("--endpoint", endpoint_url(spec), "--out", f"{RAW_DIR}/{PROBE_FOLDER}"),
    )
    return Process("client", "client", HEAD_NODE, (), {}, argv, log_path("client"))
