"""List the configurations among which every method of the benchmark searches: 464, none breaks a rule."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from tune.config import compose_overrides
from tune.engines.check import check
from tune.spec.bind import Point, bind_point, locate_point
from tune.spec.findings import only_errors
from tune.spec.space import GraphFamilyDimension, OrderedDimension, Sweep, Value
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.study.candidates import candidates

SETTINGS = compose_overrides([]).settings
BASE = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration is not None
PRIOR = SETTINGS.cluster.calibration

AXES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "prefill_tp": ("prefill.tensor_parallel_size", (2, 4, 8)),
    "decode_tp": ("decode.tensor_parallel_size", (4, 8)),
    "prefill_workers": (
        "split.prefill_workers",
        (6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 20, 22, 24, 26, 28, 30),
    ),
    "prefill_chunk": ("prefill.max_num_tokens", (2048, 4096, 8192, 16384)),
    "decode_batch": ("decode.max_batch_size", (128, 512)),
}
"""Path and values of every setting. Chosen so that the seed's configuration is among them, and so that other
kernels have another best configuration."""

SWEEP = Sweep(
    question="Which parallelism, split, chunk and decode batch hold the highest rate?",
    n_trials=60,
    fill_decode=True,
    space={
        name: OrderedDimension(kind="ordered", path=path, values=values)
        for name, (path, values) in AXES.items()
    }
    | {"decode_cuda_graphs": GraphFamilyDimension(kind="graph_family", path="decode", values=("listed",))},
)


@dataclass(frozen=True)
class Configuration:
    """Hold the values in the order of AXES and the trial as it is deployed."""

    values: tuple[int, ...]
    spec: TrialSpec

    @property
    def label(self) -> str:
        """Return prefill, decode, chunk and decode batch, such as tp4x14-tp4x4-4096-512."""
        prefill_tp, decode_tp, workers, chunk, batch = self.values
        return f"tp{prefill_tp}x{workers}-tp{decode_tp}x{self.spec.split.decode_workers}-{chunk}-{batch}"

    @property
    def pools(self) -> Mapping[Role, tuple[int, ...]]:
        """Return the settings that distinguish each pool; for prefill with the links that it sends to."""
        *prefill, batch = self.values
        return {
            "prefill": tuple(prefill),
            "decode": (self.values[1], self.spec.split.decode_workers, batch),
        }


def point_of(values: tuple[int, ...]) -> Point:
    """Return the point of a sweep with these values."""
    point: dict[str, Value] = dict(zip(AXES, values, strict=True))
    return point | {"decode_cuda_graphs": "listed"}


def values_of(point: Point) -> tuple[int, ...]:
    """Return the values of a point in the order of AXES."""
    return tuple(int(point[name]) for name in AXES)


def configurations() -> tuple[Configuration, ...]:
    """Return all that break no rule, in the order of AXES, last axis fastest."""
    valid = []
    for values in itertools.product(*(values for _, values in AXES.values())):
        spec = bind_point(BASE, SWEEP, point_of(values))
        if spec.split.decode_workers and not only_errors(check(spec)):
            valid.append(Configuration(values, spec))
    return tuple(valid)


CONFIGURATIONS = configurations()
INDEX = {configuration.values: index for index, configuration in enumerate(CONFIGURATIONS)}
_SEED = locate_point(BASE, SWEEP)
assert _SEED is not None, "the seed's configuration is in the space"
SEED = INDEX[values_of(_SEED)]
"""Index of the reference configuration, 14P4D of TP4."""


_CANDIDATES = candidates(BASE, SWEEP, 0)
_ROWS = {values_of(point): row for row, point in enumerate(_CANDIDATES.points)}
FEATURES = _CANDIDATES.features[[_ROWS[each.values] for each in CONFIGURATIONS]]
"""Settings as a study has them, each from 0 to 1: (configurations, settings)."""

MATTERS = _CANDIDATES.matters
"""Whether each of FEATURES changes prefill and whether it changes decode: (2, settings)."""


def neighbours(index: int) -> list[int]:
    """Return the configurations one step away along one axis."""
    values = CONFIGURATIONS[index].values
    indices = []
    for axis, (_, choices) in enumerate(AXES.values()):
        position = choices.index(values[axis])
        for step in (-1, 1):
            if 0 <= position + step < len(choices):
                other = (*values[:axis], choices[position + step], *values[axis + 1 :])
                if other in INDEX:
                    indices.append(INDEX[other])
    return indices
