"""How the rack is divided: workers of each pool, who answers first, and which GPUs each worker gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tune.spec.engine import Engine
from tune.spec.hardware import Hardware
from tune.spec.typed import NonNegativeInt, Typed

Role = Literal["prefill", "decode"]


class Split(Typed):
    """Worker counts. `prefill_first`: the prefill worker is the endpoint and relays the decode stream."""

    prefill_workers: NonNegativeInt
    decode_workers: NonNegativeInt
    disaggregation_strategy: Literal["prefill_first", "decode_first"] = "prefill_first"

    @property
    def label(self) -> str:
        """The field's shorthand, such as 14P4D."""
        return f"{self.prefill_workers}P{self.decode_workers}D"


@dataclass(frozen=True)
class Placed:
    """One worker: (node index, GPU id) of each of its GPUs, rank 0 first."""

    role: Role
    index: int
    gpus: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(node for node, _ in self.gpus))

    def gpus_on(self, node: int) -> tuple[int, ...]:
        return tuple(gpu for at, gpu in self.gpus if at == node)


def place(hardware: Hardware, prefill: Engine, decode: Engine, split: Split) -> tuple[Placed, ...] | None:
    """First fit, prefill workers before decode workers; None when the rack is too small.

    A worker smaller than a node shares it with others, a worker as large or larger takes whole nodes that
    lie next to each other. Workers must divide a node or be made of whole nodes (`rules.check` says so).
    """
    free = [list(range(hardware.gpus_per_node)) for _ in range(hardware.nodes)]
    placed: list[Placed] = []
    for role, engine, count in (
        ("prefill", prefill, split.prefill_workers),
        ("decode", decode, split.decode_workers),
    ):
        for index in range(count):
            gpus = _take(free, engine.gpus, hardware.gpus_per_node)
            if gpus is None:
                return None
            placed.append(Placed(role, index, gpus))  # type: ignore[arg-type]
    return tuple(placed)


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


def decode_workers_that_fit(hardware: Hardware, prefill: Engine, decode: Engine, prefill_workers: int) -> int:
    """The most decode workers that fit beside `prefill_workers`; 0 when not even those fit."""
    count = 0
    while place(hardware, prefill, decode, Split(prefill_workers=prefill_workers, decode_workers=count + 1)):
        count += 1
    return count
