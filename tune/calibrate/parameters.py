"""What can be fitted: a number of the simulated rack or of the dataset, its bounds and its prior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel

from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration
from tune.spec.load import Dataset

Values = Mapping[str, float]
"""A value for each parameter, by its name."""

_DATASET = "load.dataset."


@dataclass(frozen=True)
class Bounds:
    """A value stays within `low..high`; `width` is the prior's standard deviation.

    `relative`: the prior is log-normal and `width` that of the logarithm; else normal, in the value's unit.
    """

    low: float
    high: float
    width: float
    relative: bool


_SCALE = Bounds(0.5, 2.0, 0.15, relative=True)
_SECONDS = Bounds(0.0, 1.0, 0.01, relative=False)

_BOUNDS: dict[str, Bounds] = {
    "ttft_overhead_s": Bounds(0.0, 1.0, 0.1, relative=False),
    "kv_transfer_bytes_per_s": Bounds(1e9, 1e12, 1.0, relative=True),
    "no_graph_overhead_s": Bounds(0.0, 0.2, 0.01, relative=False),
    "no_overlap_overhead_s": Bounds(0.0, 0.05, 0.004, relative=False),
    "large_batch_weight_reads": Bounds(0.0, 4.0, 0.5, relative=False),
    "frontend_message_s": Bounds(0.0, 1e-3, 2e-5, relative=False),
    "load.dataset.outputs.cap_frac": Bounds(0.0, 0.05, 0.003, relative=False),
}
"""Bounds of single parameters; others have those of their unit. All are our judgement. The widths say how
far a rack may be from the one that the configuration describes before the data must insist: 15 % in the speed
of a step (another software stack), 0.1 s in the front end, 5 % and 2 % in mean lengths others counted."""

_BY_UNIT = {"_scale": _SCALE, "_s": _SECONDS}

_LENGTH_WIDTHS = {
    "load.dataset.inputs.mean_tokens": 0.05,
    "load.dataset.inputs.sd_tokens": 0.15,
    "load.dataset.outputs.mean_tokens": 0.02,
}
"""Lengths stay within half and double of their start."""

_WITHOUT_EFFECT = {"bring_up_s"}
"""Counted in GPU-hours; no latency depends on it."""


@dataclass(frozen=True)
class Parameter:
    """A parameter with `start`, the value that it has in the configuration: the centre of its prior.

    The fit moves `u`, the distance from `start` in prior widths: value = start e^(width u) where the prior
    is log-normal, start + width u where it is normal.
    """

    name: str
    start: float
    bounds: Bounds

    @property
    def of_dataset(self) -> bool:
        return self.name.startswith(_DATASET)

    @property
    def override(self) -> str:
        """The key that sets it on the command line."""
        return self.name if self.of_dataset else f"cluster.calibration.{self.name}"

    def value(self, u: float) -> float:
        bounds = self.bounds
        moved = self.start * math.exp(bounds.width * u) if bounds.relative else self.start + bounds.width * u
        return min(max(moved, bounds.low), bounds.high)

    def u(self, value: float) -> float:
        """The inverse of `value`, for values within the bounds."""
        bounds = self.bounds
        if bounds.relative:
            return math.log(value / self.start) / bounds.width
        return (value - self.start) / bounds.width


def find_parameters(
    names: Sequence[str], calibration: Calibration, dataset: Dataset
) -> tuple[Parameter, ...]:
    """The parameters called `names`, with their values in `calibration` and `dataset` as starts.

    Raises ConfigurationError for none, a name that is unknown or comes twice, a value outside its bounds.
    """
    known = _known(calibration, dataset)
    if not names:
        raise ConfigurationError(f"calibrate.parameters is empty; expected some of {', '.join(known)}.")
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigurationError(
                f"calibrate.parameters: found {name!r}, which cannot be fitted. {hint}"
                f"There are: {', '.join(known)}."
            )
        if names.count(name) > 1:
            raise ConfigurationError(
                f"calibrate.parameters: found {name} {names.count(name)} times; expected once."
            )
    parameters = tuple(known[name] for name in names)
    for parameter in parameters:
        bounds = parameter.bounds
        if not bounds.low <= parameter.start <= bounds.high or (bounds.relative and not parameter.start):
            raise ConfigurationError(
                f"{parameter.override}: found {parameter.start:g}, where the fit would start; expected "
                f"a value {'above 0 ' if bounds.relative else ''}within {bounds.low:g}..{bounds.high:g}."
            )
    return parameters


def with_values(calibration: Calibration, values: Values) -> Calibration:
    """`calibration` with those of `values` that are its own."""
    own = {name: value for name, value in values.items() if name in Calibration.model_fields}
    return calibration.model_copy(update=own)


def with_dataset_values(dataset: Dataset, values: Values) -> Dataset:
    """`dataset` with those of `values` that are its own."""
    for path, value in values.items():
        if path.startswith(_DATASET):
            part, name = path.removeprefix(_DATASET).split(".")
            moved = getattr(dataset, part).model_copy(update={name: value})
            dataset = dataset.model_copy(update={part: moved})
    return dataset


def _known(calibration: Calibration, dataset: Dataset) -> dict[str, Parameter]:
    """Every number that has bounds, by its name."""
    numbers = {name: value for name, value in _numbers(calibration) if name not in _WITHOUT_EFFECT}
    for part in ("inputs", "outputs"):
        numbers |= {f"{_DATASET}{part}.{name}": value for name, value in _numbers(getattr(dataset, part))}
    found = {name: (value, bounds_of(name, value)) for name, value in numbers.items()}
    return {name: Parameter(name, value, bounds) for name, (value, bounds) in found.items() if bounds}


def _numbers(words: BaseModel) -> Iterator[tuple[str, float]]:
    for name, field in type(words).model_fields.items():
        if field.annotation is float:
            yield name, getattr(words, name)


def bounds_of(name: str, start: float) -> Bounds | None:
    """Bounds of the parameter `name`: its own, or those of its unit; None where neither is known."""
    if name in _LENGTH_WIDTHS:
        return Bounds(start / 2, start * 2, _LENGTH_WIDTHS[name], relative=True)
    by_unit = next((bounds for unit, bounds in _BY_UNIT.items() if name.endswith(unit)), None)
    return _BOUNDS.get(name, by_unit)
