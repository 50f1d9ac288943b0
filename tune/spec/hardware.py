"""Hold the rack: nodes, GPUs, and the figures of the data sheet that memory and step times depend on."""

from __future__ import annotations

from tune.spec.base import Count, FrozenModel, PositiveFloat


class Hardware(FrozenModel):
    """Hold `nodes` x `gpus_per_node` allocated GPUs, idle ones included. Rates are per GPU, one way."""

    name: str
    nodes: Count
    gpus_per_node: Count
    hbm_bytes: PositiveFloat
    hbm_bytes_per_s: PositiveFloat
    fp4_flop_per_s: PositiveFloat
    fp8_flop_per_s: PositiveFloat
    bf16_flop_per_s: PositiveFloat
    nvlink_bytes_per_s: PositiveFloat

    @property
    def gpus(self) -> int:
        """Return the GPUs allocated to a trial: the denominator of tokens/s/GPU."""
        return self.nodes * self.gpus_per_node
