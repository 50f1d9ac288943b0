"""Divide the rack: workers of each pool, which pool is the endpoint, and which GPUs each worker gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from tune.spec.base import FrozenModel, NonNegativeInt, PositiveInt
from tune.spec.engine import Engine
from tune.spec.hardware import Hardware

Role = Literal["prefill", "decode", "aggregated"]
"""What the workers of a pool do with a request: one half of it each, or all of it."""

ROLES: tuple[Role, ...] = ("prefill", "decode")
"""Pools of a disaggregated deployment."""

ALL_ROLES: tuple[Role, ...] = (*ROLES, "aggregated")

READS_PROMPTS = frozenset[Role](("prefill", "aggregated"))
GENERATES_ANSWERS = frozenset[Role](("decode", "aggregated"))

HEAD_NODE = 0
"""Node index of the first frontend, of the services that workers register with, and of the load client."""

FrontendChoice = Literal["round_robin", "fewest_input_tokens"]
"""How the load client chooses the frontend of a request: in turn, or the one whose unanswered requests have
the fewest prompt tokens together. Source: NVIDIA's MLPerf Inference v6.1 harness, traffic_distribution_policy
(round_robin, isl_load_balancing)."""


class Split(FrozenModel):
    """Hold the number of workers of each pool, and of the frontends before them.

    A deployment has a prefill and a decode pool, or aggregated workers alone, whose number is absent from
    records where there are none.

    With `prefill_first` the prefill worker is the endpoint and relays the decode stream. `head` names the
    pool whose first worker shares the head node with the first frontend; "none" leaves that node without
    workers. Further frontends run on the next nodes, one a node, then from the head node on again. A single
    frontend, and the choice that it leaves, are absent from records.
    """

    prefill_workers: NonNegativeInt
    decode_workers: NonNegativeInt
    aggregated_workers: Annotated[NonNegativeInt, Field(default=0, exclude_if=lambda count: count == 0)]
    disaggregation_strategy: Literal["prefill_first", "decode_first"] = "prefill_first"
    head: Literal["prefill", "decode", "none"] = "prefill"
    frontends: Annotated[PositiveInt, Field(default=1, exclude_if=lambda count: count == 1)]
    frontend_choice: Annotated[
        FrontendChoice, Field(default="round_robin", exclude_if=lambda choice: choice == "round_robin")
    ]

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return the pools of the deployment, in the order in which their workers are numbered."""
        return ("aggregated",) if self.aggregated_workers else ROLES

    def workers(self, role: Role) -> int:
        """Return the number of workers of a pool."""
        count: int = getattr(self, f"{role}_workers")
        return count

    @property
    def label(self) -> str:
        """Return the field's shorthand, such as 14P4D, or 18A for aggregated workers."""
        return "".join(f"{self.workers(role)}{role[0].upper()}" for role in self.roles)


@dataclass(frozen=True)
class WorkerPlacement:
    """Hold where one worker runs: (node index, GPU id) of each of its GPUs, rank 0 first."""

    role: Role
    index: int
    gpus: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Return the indices of its nodes, in rank order."""
        return tuple(dict.fromkeys(node for node, _ in self.gpus))

    def gpus_on(self, node: int) -> tuple[int, ...]:
        """Return the ids of its GPUs on one node."""
        return tuple(gpu for index, gpu in self.gpus if index == node)


def frontend_nodes(hardware: Hardware, split: Split) -> tuple[int, ...]:
    """Return the node index of each frontend, the head node first."""
    return tuple(index % hardware.nodes for index in range(split.frontends))


def place_workers(
    hardware: Hardware, prefill: Engine, decode: Engine, split: Split
) -> tuple[WorkerPlacement, ...] | None:
    """Place every worker on the first GPUs that fit, the pool that `split.head` names before the other.

    A worker smaller than a node shares it with others. A worker as large as a node or larger takes whole
    nodes that lie next to each other. Workers must divide a node or be made of whole nodes
    (tune/spec/rules.py checks it).

    Parameters
    ----------
    hardware
        Nodes and GPUs of the rack.
    prefill, decode
        Give the GPUs of one worker of each pool; both are those of aggregated workers.
    split
        Gives the number of workers of each pool.

    Returns
    -------
    The workers in the order of `split.roles`; None when the rack is too small.
    """
    return _placed(hardware, prefill.gpus, decode.gpus, split)


@lru_cache(maxsize=4096)
def _placed(
    hardware: Hardware, prefill_gpus: int, decode_gpus: int, split: Split
) -> tuple[WorkerPlacement, ...] | None:
    """Place workers of `prefill_gpus` and `decode_gpus` GPUs; the points of a sweep repeat few placements."""
    free = [list(range(hardware.gpus_per_node)) for _ in range(hardware.nodes)]
    if split.head == "none":
        free[HEAD_NODE].clear()
    placed: list[WorkerPlacement] = []
    first = HEAD_NODE
    for role in sorted(split.roles, key=lambda role: role != split.head):
        size = prefill_gpus if role in READS_PROMPTS else decode_gpus
        for index in range(split.workers(role)):
            while first < len(free) and not free[first]:
                first += 1
            gpus = _take(free, first, size, hardware.gpus_per_node)
            if gpus is None:
                return None
            placed.append(WorkerPlacement(role, index, gpus))
    return tuple(sorted(placed, key=lambda worker: ALL_ROLES.index(worker.role)))


def _take(free: list[list[int]], first: int, size: int, per_node: int) -> tuple[tuple[int, int], ...] | None:
    """Return the GPUs of a worker and take them from `free`; no node before `first` has a free one."""
    span = max(1, -(-size // per_node))
    share = size // span
    for start in range(first, len(free) - span + 1):
        nodes = range(start, start + span)
        if all(len(free[n]) == per_node if span > 1 else len(free[n]) >= share for n in nodes):
            taken = tuple((n, gpu) for n in nodes for gpu in free[n][:share])
            for n in nodes:
                del free[n][:share]
            return taken
    return None


def filled_split(hardware: Hardware, prefill: Engine, decode: Engine, split: Split) -> Split:
    """Return `split` with the most decode workers that fit beside its prefill workers, 0 when none fits.

    An aggregated one gets the most workers that fit; one is left where none does.
    """
    aggregated = split.aggregated_workers > 0
    free = hardware.gpus if aggregated else hardware.gpus - split.prefill_workers * prefill.gpus
    name = "aggregated_workers" if aggregated else "decode_workers"
    for count in range(free // decode.gpus, 0, -1):
        filled = split.model_copy(update={name: count})
        if place_workers(hardware, prefill, decode, filled):
            return filled
    return split.model_copy(update={name: int(aggregated)})
