"""Racks that may be the real one: factors on what the calibration says, and hypotheses that hold or do not.

Source of the method: Bayesian calibration of computer models, Kennedy and O'Hagan, J. R. Stat. Soc. B 63,
2001. The simulator is right for some unknown rack, but for an error that is smooth over configurations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

SPREAD = {
    "prefill_scale": 0.3,
    "decode_scale": 0.3,
    "all_reduce": 0.35,
    "ttft_overhead_s": 0.7,
    "kv_transfer_bytes_per_s": 1.2,
    "kv_capacity": 0.15,
}
"""Figures of the rack, and the standard deviation of ln of the factor by which each may be otherwise. Our
choice: kernels of another software stack or GPU lie within a factor of 1.8 (two standard deviations), a
network may be Ethernet where NVLink was assumed. `all_reduce` is time, `kv_capacity` the KV cache of a decode
worker in tokens."""

TP_SPREAD = 0.1
"""The same for the kernels of one tensor parallelism beside those of the others."""

LONGEST_FACTOR = {"kv_capacity": 1.1}
"""A factor above this is not believed: what is free is known from the memory that a GPU has."""


CONFIGURED_ROUTER_PROBABILITY = 0.6
"""How probable it is that requests are routed as the configuration says. Our choice, by the development racks
of benchmarks/search_synthetic_racks.py, half of which route otherwise."""


@dataclass(frozen=True)
class Hypothesis:
    """Values that a figure may have, and how probable each is before anything was measured."""

    name: str
    values: tuple[float, ...]
    probability: tuple[float, ...]


ROUTERS = ("round-robin", "random", "least-loaded")
"""A value of the hypothesis `router` is an index of these."""


def hypotheses(spec: TrialSpec, calibration: Calibration, structural: bool = True) -> tuple[Hypothesis, ...]:
    """What may be so or not; what the configuration and the calibration say is the most probable.

    Not `structural`: that alone, with certainty.
    """
    found = (
        ("router", (0.0, 1.0, 2.0), float(ROUTERS.index(_router(spec))), CONFIGURED_ROUTER_PROBABILITY),
        ("large_batch_weight_reads", (0.0, 1.0, 2.0), calibration.large_batch_weight_reads, 0.5),
        ("last_decode_worker_scale", (1.0, 1.15, 1.3), calibration.last_decode_worker_scale, 0.5),
        ("head_node_scale", (1.0, 1.1, 1.2), calibration.head_node_scale, 0.5),
    )
    if structural:
        return tuple(_around(*one) for one in found)
    return tuple(Hypothesis(name, (said,), (1.0,)) for name, _, said, _ in found)


def _router(spec: TrialSpec) -> str:
    return spec.stack.router_mode if spec.stack.router_mode in ROUTERS else "round-robin"


def _around(name: str, values: Sequence[float], said: float, probability: float) -> Hypothesis:
    """So much for what is `said`, the rest shared among the others of `values`."""
    others = tuple(value for value in values if value != said)
    rest = (1 - probability) / len(others)
    return Hypothesis(name, (said, *others), (probability, *(rest for _ in others)))


@dataclass(frozen=True, eq=False)
class ParameterSamples:
    """Drawn racks: `normal` (n, figures) in standard deviations of ln, `choice` (n, hypotheses) indices."""

    normal: FloatArray
    choice: IntArray

    def __len__(self) -> int:
        return len(self.normal)

    def __getitem__(self, which: IntArray) -> ParameterSamples:
        return ParameterSamples(self.normal[which], self.choice[which])

    def distinct(self) -> tuple[ParameterSamples, IntArray]:
        """Each once, and which of those every rack is, (n,)."""
        every = np.column_stack([self.normal, self.choice])
        _, first, at = np.unique(every, axis=0, return_index=True, return_inverse=True)
        return self[first], at


class ParameterPrior:
    """The racks that are thought possible for configurations with these tensor parallelisms."""

    def __init__(
        self, prefill_tp: Sequence[int], decode_tp: Sequence[int], alternatives: Sequence[Hypothesis]
    ) -> None:
        tps = {f"prefill_scale_tp{tp}": TP_SPREAD for tp in prefill_tp if len(prefill_tp) > 1}
        tps |= {f"decode_scale_tp{tp}": TP_SPREAD for tp in decode_tp if len(decode_tp) > 1}
        self.spread: Mapping[str, float] = SPREAD | tps
        self.names = tuple(self.spread)
        self.alternatives = tuple(alternatives)
        self._sd = np.array(list(self.spread.values()))

    def draw(self, count: int, draws: np.random.Generator) -> ParameterSamples:
        """`count` racks as probable as they are before anything was measured."""
        chosen = [draws.choice(len(one.values), count, p=one.probability) for one in self.alternatives]
        return ParameterSamples(draws.normal(size=(count, len(self.names))), np.stack(chosen, 1))

    def ln_probability(self, racks: ParameterSamples) -> FloatArray:
        """ln of how probable each rack is before anything was measured, (n,), but for a constant."""
        found: FloatArray = -0.5 * (racks.normal**2).sum(1)
        for at, one in enumerate(self.alternatives):
            found += np.log(np.array(one.probability))[racks.choice[:, at]]
        return found

    def factors(self, racks: ParameterSamples) -> Mapping[str, FloatArray]:
        """By the name of a figure, its factor on each rack, (n,); 1 for what nothing here varies."""
        found = np.exp(self._sd * racks.normal).T
        known = {name: np.minimum(found[at], LONGEST_FACTOR.get(name, np.inf))
                 for at, name in enumerate(self.names)}  # fmt: skip
        return defaultdict(partial(np.ones, len(racks)), known)

    def values(self, name: str) -> tuple[float, ...]:
        return self.alternatives[self._at(name)].values

    def index(self, racks: ParameterSamples, name: str) -> IntArray:
        """Which of the values of hypothesis `name` each rack has, (n,)."""
        return racks.choice[:, self._at(name)]

    def value(self, racks: ParameterSamples, name: str) -> FloatArray:
        """The value of hypothesis `name` on each rack, (n,)."""
        found: FloatArray = np.array(self.values(name))[self.index(racks, name)]
        return found

    def _at(self, name: str) -> int:
        return next(at for at, one in enumerate(self.alternatives) if one.name == name)
