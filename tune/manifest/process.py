"""Describe one process of a deployment, on nodes that are only numbers until the job runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tune.spec.cluster import ClusterFacts
from tune.spec.trial import PROBE_FOLDER

ProcessRole = Literal[
    "nats", "etcd", "frontend", "prefill", "decode", "aggregated", "client", "check", "sample"
]

OUTSIDE_IMAGE: tuple[ProcessRole, ...] = ("client", "sample")
"""Roles of the processes that run on a node itself, also where there is an image."""

HEAD_HOST, HEAD_NODE_IP = "${HEAD_NODE}", "${HEAD_NODE_IP}"
NODE, NODE_IP = "${NODE}", "${NODE_IP}"
PLAN_DIR, RAW_DIR = "${PLAN_DIR}", "${RAW_DIR}"
SCRATCH_DIR = "${SCRATCH_DIR}"
PLACEHOLDERS = (HEAD_HOST, HEAD_NODE_IP, NODE, NODE_IP, PLAN_DIR, RAW_DIR, SCRATCH_DIR)
"""Placeholders for values that a plan leaves open: host name and address of node 0 and of a process' own
first node, the plan's folder, the attempt's folder, a folder that every node sees and that is removed in the
end. `address_of` makes those for the addresses of other nodes. They stand in `Process.env`, `.argv` and
`.log`, in ProcessManifest and in shell texts; `bind_text` fills them."""

DISCOVERY_FOLDER = "discovery"
"""Folder of SCRATCH_DIR with the files by which processes find each other where there is no etcd."""

PLACEHOLDER = re.compile("|".join([*map(re.escape, PLACEHOLDERS), r"\$\{NODE_[1-9]\d*_IP\}"]))
"""Matches every placeholder."""

START_ETCD = (
    "data=$(mktemp -d -p /dev/shm tune-scratch-XXXXXXXX 2>/dev/null) "
    '&& exec 9<"$data" && flock -n 9 && [ -d "$data" ] || data=$(mktemp -d); '
    'PATH=$PATH:/usr/local/bin/etcd exec "$0" --data-dir "$data" "$@"'
)
"""Shell command that gives etcd a fresh data directory in memory, on local disk where there is none. On a
shared file system its writes stall, and workers lose their leases in mid-run; a directory of its own does not
hold the workers of a killed job. The lock, which etcd inherits, keeps it while etcd runs
(tune/orchestrator/supervision/scratch.py). Images of Dynamo have etcd in a folder of that name, and lose the
PATH that leads there where enroot imports them. Source: NVIDIA, MLPerf Inference v6.1,
dynamo_disagg_loadgen.yaml."""

RANK_SCRIPT = "rank.sh"
"""File of a plan that starts one rank of a worker: bash rank.sh WORKER DELAY_S COMMAND ..."""


@dataclass(frozen=True)
class Port:
    """Hold a TCP port that a process listens on, and the setting that names it."""

    number: int
    setting: str


@dataclass(frozen=True)
class Process:
    """Describe one process of a deployment.

    `gpus` holds (node index, GPU id) of each rank, rank 0 first; it is empty without GPUs. `mpi` says whether
    these ranks are the tasks of one MPI job; without it a process is one task on each of its nodes. `env` is
    all that the process needs beyond the job's own environment, and `inherits` names the variables that it
    takes from the environment in which tune was started. `log` is relative to RAW_DIR. `listens` holds
    every port it opens on its node, as far as the plan chooses them. `metrics_port` is where it answers
    `/metrics` in Prometheus' text format, None where it does not.
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
    mpi: bool = False
    inherits: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[int, ...]:
        """Return the indices of its nodes, in rank order."""
        return tuple(dict.fromkeys(node for node, _ in self.gpus)) or (self.node_index,)

    @property
    def tasks(self) -> int:
        """Return the number of tasks of its srun step."""
        return max(1, len(self.gpus)) if self.mpi else len(self.nodes)


def log_path(name: str) -> str:
    """Return where the process `name` logs, relative to RAW_DIR."""
    return f"logs/{NODE}_{name}.out"


def programs(process: Process) -> tuple[str, ...]:
    """Return the programs that the command line of `process` starts first."""
    if process.argv[:2] == ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}"):
        return "bash", process.argv[4]
    return (process.argv[0],)


def dynamo_program(facts: ClusterFacts, name: str) -> str:
    """Return the path of a program in the environment of Dynamo, or its name where the PATH has it."""
    return name if facts.dynamo_venv is None else f"{facts.dynamo_venv}/bin/{name}"


def address_of(node_index: int) -> str:
    """Return the placeholder for the address of a node."""
    return f"${{NODE_{node_index}_IP}}" if node_index else HEAD_NODE_IP


def address_values(addresses: Sequence[str]) -> dict[str, str]:
    """Return the value of every placeholder for the address of a node, by its name."""
    return {address_of(index)[2:-1]: address for index, address in enumerate(addresses)}


def bind_text(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with every placeholder `${NAME}` replaced by `values[NAME]`."""
    return PLACEHOLDER.sub(lambda found: values[found.group()[2:-1]], text)


def client_of(client: Process, probe: str) -> Process:
    """Return `client` of a plan as the client of another probe.

    It reads RAW_DIR/`probe`/client.json, and its record goes into RAW_DIR/`probe` too.
    """
    named = {f"{PLAN_DIR}/client.json": f"{RAW_DIR}/{probe}/client.json"}
    named |= {f"{RAW_DIR}/{PROBE_FOLDER}": f"{RAW_DIR}/{probe}"}
    argv = tuple(named.get(text, text) for text in client.argv)
    return replace(client, argv=argv, log=f"{client.log.removesuffix('.out')}_{probe}.out")
