"""How the rack is divided: workers of each pool, who answers first, and which GPUs each worker gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tune.spec.base import FrozenModel, NonNegativeInt
from tune.spec.engine import Engine
from tune.spec.hardware import Hardware

Role = Literal["prefill", "decode"]
ROLES: tuple[Role, ...] = ("prefill", "decode")

HEAD_NODE = 0
"""The node index of the frontend, of what workers register with, and of the load client."""


class Split(FrozenModel):
    """Worker counts. `prefill_first`: the prefill worker is the endpoint and relays the decode stream.

    `head`: whose first worker shares the head node with the frontend; "none" leaves it without workers.
    """

    prefill_workers: NonNegativeInt
    decode_workers: NonNegativeInt
    disaggregation_strategy: Literal["prefill_first", "decode_first"] = "prefill_first"
    head: Literal["prefill", "decode", "none"] = "prefill"

    @property
    def label(self) -> str:
        """The field's shorthand, such as 14P4D."""
        return f"{self.prefill_workers}P{self.decode_workers}D"


@dataclass(frozen=True)
class WorkerPlacement:
    """One worker: (node index, GPU id) of each of its GPUs, rank 0 first."""

    role: Role
    index: int
    gpus: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(node for node, _ in self.gpus))

    def gpus_on(self, node: int) -> tuple[int, ...]:
        return tuple(gpu for at, gpu in self.gpus if at == node)


def place_workers(
    hardware: Hardware, prefill: Engine, decode: Engine, split: Split
) -> tuple[WorkerPlacement, ...] | None:
    """First fit, the pool that `split.head` names before the other; None when the rack is too small.

    A worker smaller than a node shares it with others, a worker as large or larger takes whole nodes that
    lie next to each other. Workers must divide a node or be made of whole nodes (`rules.check` says so).
    Returned are the prefill workers, then the decode workers.
    """
    free = [list(range(hardware.gpus_per_node)) for _ in range(hardware.nodes)]
    if split.head == "none":
        free[HEAD_NODE].clear()
    pools: dict[Role, tuple[int, int]] = {
        "prefill": (prefill.gpus, split.prefill_workers),
        "decode": (decode.gpus, split.decode_workers),
    }
    placed: list[WorkerPlacement] = []
    for role in sorted(ROLES, key=lambda role: role != split.head):
        size, count = pools[role]
        for index in range(count):
            gpus = _take(free, size, hardware.gpus_per_node)
            if gpus is None:
                return None
            placed.append(WorkerPlacement(role, index, gpus))
    return tuple(sorted(placed, key=lambda worker: ROLES.index(worker.role)))


def _take(free: list[list[int]], size: int, per_node: int) -> tuple[tuple[int, int], ...] | None:
    span = max(1, -(-size // per_node))
    share = size // span
    for start in range(len(free) - span + 1):
        nodes = range(start, start + span)
        if all(len(free[n]) == per_node if span > 1 else len(free[n]) >= share for n in nodes):
            taken = tuple((n, gpu) for n in nodes for gpu in free[n][:share])
            for n in nodes:
                del free[n][:share]
            return taken
    return None


def decode_workers_that_fit(hardware: Hardware, prefill: Engine, decode: Engine, split: Split) -> int:
    """The most decode workers that fit beside the prefill workers of `split`; 0 when not even those fit."""
    free = hardware.gpus - split.prefill_workers * prefill.gpus
    for count in range(free // decode.gpus, 0, -1):
        if place_workers(hardware, prefill, decode, split.model_copy(update={"decode_workers": count})):
            return count
    return 0
