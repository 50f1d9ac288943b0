"""Render what Dynamo's processes find each other by, on the address of the head node alone.

Until 0.9 that is etcd for discovery and NATS with JetStream for requests and events. Dynamo 1.x sends
requests over TCP and events over ZeroMQ: NATS is needed only where it is asked for, and etcd not where
discovery is by files.
Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); components/src/dynamo/frontend/
frontend_args.py (1.x).
"""

from __future__ import annotations

from tune.manifest.process import (
    HEAD_NODE_IP,
    START_ETCD,
    Port,
    Process,
    ProcessRole,
    log_path,
)
from tune.spec.split import HEAD_NODE
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec


def dynamo_services(spec: TrialSpec) -> tuple[Process, ...]:
    """Return NATS and etcd, each where Dynamo needs it, on the head node."""
    nats = (_nats(spec.stack),) if spec.stack.needs_nats else ()
    return nats if spec.stack.shares_files else (*nats, _etcd(spec.stack))


def _nats(stack: Stack) -> Process:
    argv = ("nats-server", "-js", "-a", HEAD_NODE_IP, "-p", str(stack.nats_port))
    return _on_head("nats", {}, argv, (Port(stack.nats_port, "stack.nats_port"),))


def _etcd(stack: Stack) -> Process:
    client = f"http://{HEAD_NODE_IP}:{stack.etcd_client_port}"
    peer = f"http://127.0.0.1:{stack.etcd_peer_port}"
    etcd = (
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    )
    listens = (
        Port(stack.etcd_client_port, "stack.etcd_client_port"),
        Port(stack.etcd_peer_port, "stack.etcd_peer_port"),
    )
    return _on_head("etcd", {}, ("bash", "-c", START_ETCD, "etcd", *etcd), listens)


def _on_head(
    role: ProcessRole,
    env: dict[str, str],
    argv: tuple[str, ...],
    listens: tuple[Port, ...],
) -> Process:
    return Process(role, role, HEAD_NODE, (), env, argv, log_path(role), listens)
