"""One process of a deployment, on nodes that are only numbers until the job runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tune.spec.cluster import ClusterFacts

ProcessRole = Literal["nats", "etcd", "frontend", "prefill", "decode", "client"]

HEAD_NODE, HEAD_NODE_IP = "${HEAD_NODE}", "${HEAD_NODE_IP}"
NODE, NODE_IP = "${NODE}", "${NODE_IP}"
PLAN_DIR, RAW_DIR = "${PLAN_DIR}", "${RAW_DIR}"
SCRATCH_DIR = "${SCRATCH_DIR}"
PLACEHOLDERS = (HEAD_NODE, HEAD_NODE_IP, NODE, NODE_IP, PLAN_DIR, RAW_DIR, SCRATCH_DIR)
"""What a plan leaves open: host name and address of node 0 and of a process' own first node, the
plan's folder, the attempt's folder, a folder that every node sees and that is removed in the end. They
occur in `Process.env`, `.argv` and `.log`, in `Launch` and the shell texts; `bind_text` fills them."""

START_ETCD = 'exec "$0" --data-dir "$(mktemp -d)" "$@"'
"""A fresh data directory on local disk: what a killed job registered must not answer for the next one."""


@dataclass(frozen=True)
class Port:
    """A TCP port that a process listens on, and the setting that names it."""

    number: int
    setting: str


@dataclass(frozen=True)
class Process:
    """`gpus`: (node index, GPU id) of each rank, rank 0 first; empty without GPUs. One task a rank.

    `env` is complete: what the process needs beyond the job's own environment. `log` is relative to RAW_DIR.
    `listens`: every port it opens on its node, as far as the plan chooses them. `metrics_port`: where it
    answers `/metrics` in Prometheus' text format, None where it does not.
    """

    name: str
    role: ProcessRole
    node_index: int
    gpus: tuple[tuple[int, int], ...]
    env: Mapping[str, str]
    argv: tuple[str, ...]
    log: str
    listens: tuple[Port, ...] = ()
    metrics_port: int | None = None

    @property
    def nodes(self) -> tuple[int, ...]:
        """Indices of its nodes, in rank order."""
        return tuple(dict.fromkeys(node for node, _ in self.gpus)) or (self.node_index,)

    @property
    def tasks(self) -> int:
        """Ranks of one srun step."""
        return max(1, len(self.gpus))


def log_path(name: str) -> str:
    """Where the process `name` logs, relative to RAW_DIR."""
    return f"logs/{NODE}_{name}.out"


def dynamo_program(facts: ClusterFacts, name: str) -> str:
    """The program `name` of the environment that holds Dynamo: its path there, or its name on the PATH."""
    return name if facts.dynamo_venv is None else f"{facts.dynamo_venv}/bin/{name}"


def bind_text(text: str, values: Mapping[str, str]) -> str:
    """`text` with every placeholder replaced; `values` maps their names without `${}` to their values."""
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, values[placeholder[2:-1]])
    return text
