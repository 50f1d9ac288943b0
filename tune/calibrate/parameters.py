"""Describe what can be fitted: numbers of the simulated rack or the dataset, with bounds and prior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel

from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration
from tune.spec.dataset import Dataset

Values = Mapping[str, float]
"""A value for each parameter, by its name."""

_DATASET = "load.dataset."


@dataclass(frozen=True)
class Bounds:
    """Limit a value to `low..high`; `width` is the prior's standard deviation.

    `relative`: the prior is log-normal and `width` that of the logarithm; else normal, in the value's unit.
    """

    low: float
    high: float
    width: float
    relative: bool


_SCALE = Bounds(0.5, 2.0, 0.15, relative=True)
_SECONDS = Bounds(0.0, 1.0, 0.01, relative=False)

_OWN_BOUNDS: dict[str, Bounds] = {
    "ttft_overhead_s": Bounds(0.0, 1.0, 0.1, relative=False),
    "kv_transfer_bytes_per_s": Bounds(1e9, 1e12, 1.0, relative=True),
    "no_graph_overhead_s": Bounds(0.0, 0.2, 0.01, relative=False),
    "no_overlap_overhead_s": Bounds(0.0, 0.05, 0.004, relative=False),
    "large_batch_weight_reads": Bounds(0.0, 4.0, 0.5, relative=False),
    "frontend_message_s": Bounds(0.0, 1e-3, 2e-5, relative=False),
    "decode_step_gap_s": Bounds(0.0, 0.05, 0.004, relative=False),
    "kv_stall_token_s": Bounds(0.0, 1e-3, 1e-5, relative=False),
    "draft_spread_frac": Bounds(0.0, 0.5, 0.05, relative=False),
    "load.dataset.outputs.cap_frac": Bounds(0.0, 0.05, 0.003, relative=False),
}
"""Bounds of single parameters; others have those of their unit.

Chosen here. A width says how far a rack may be from its configuration before the data must insist: 15 % in
the speed of a step (another software stack), 0.1 s in the frontend, 5 % and 2 % in mean lengths that others
counted.
"""

_UNIT_BOUNDS = {"_scale": _SCALE, "_s": _SECONDS}

_LENGTH_PRIOR_WIDTHS = {
    "load.dataset.inputs.mean_tokens": 0.05,
    "load.dataset.inputs.sd_tokens": 0.15,
    "load.dataset.outputs.mean_tokens": 0.02,
}
"""Widths of the priors of lengths, which stay within half and double of their start."""

_FROM_0 = ("decode_step_gap_s", "kv_stall_token_s", "draft_spread_frac")
"""Parameters of the calibration that start at 0 where they are not set."""

_NOT_FITTABLE = {"bring_up_s"}
"""Counted in GPU-hours; no latency depends on it."""


@dataclass(frozen=True)
class Parameter:
    """Describe a parameter; `start`, its value in the configuration, is the centre of its prior.

    The fit moves `u`, the distance from `start` in prior widths: value = start e^(width u) where the prior is
    log-normal, start + width u where it is normal.
    """

    name: str
    start: float
    bounds: Bounds

    @property
    def of_dataset(self) -> bool:
        """Return whether the parameter belongs to the dataset."""
        return self.name.startswith(_DATASET)

    @property
    def override(self) -> str:
        """Return the key that sets the parameter on the command line."""
        return self.name if self.of_dataset else f"cluster.calibration.{self.name}"

    def value(self, u: float) -> float:
        """Return the value at the distance `u`, clipped to the bounds."""
        bounds = self.bounds
        distance = bounds.width * u
        unclipped = self.start * math.exp(distance) if bounds.relative else self.start + distance
        return min(max(unclipped, bounds.low), bounds.high)

    def u(self, value: float) -> float:
        """Return the distance of `value`, which lies within the bounds, from the start in prior widths."""
        bounds = self.bounds
        if bounds.relative:
            return math.log(value / self.start) / bounds.width
        return (value - self.start) / bounds.width


def find_parameters(
    names: Sequence[str], calibration: Calibration, dataset: Dataset
) -> tuple[Parameter, ...]:
    """Return the parameters called `names`, with their values in `calibration` and `dataset` as starts.

    Raises ConfigurationError for no names, an unknown or repeated name, or a value outside its bounds.
    """
    fittable = _fittable_parameters(calibration, dataset)
    if not names:
        raise ConfigurationError(f"calibrate.parameters is empty; expected some of {', '.join(fittable)}.")
    for name in names:
        if name not in fittable:
            matches = get_close_matches(name, fittable, n=1)
            hint = f"Did you mean {matches[0]}? " if matches else ""
            raise ConfigurationError(
                f"calibrate.parameters: found {name!r}, which cannot be fitted. {hint}"
                f"There are: {', '.join(fittable)}."
            )
        if names.count(name) > 1:
            raise ConfigurationError(
                f"calibrate.parameters: found {name} {names.count(name)} times; expected once."
            )
    parameters = tuple(fittable[name] for name in names)
    for parameter in parameters:
        bounds = parameter.bounds
        if not bounds.low <= parameter.start <= bounds.high or (bounds.relative and not parameter.start):
            raise ConfigurationError(
                f"{parameter.override}: found {parameter.start:g}, where the fit would start; expected "
                f"a value {'above 0 ' if bounds.relative else ''}within {bounds.low:g}..{bounds.high:g}."
            )
    return parameters


def with_values(calibration: Calibration, values: Values) -> Calibration:
    """Return `calibration` with those of `values` that belong to it."""
    own = {name: value for name, value in values.items() if name in Calibration.model_fields}
    return calibration.model_copy(update=own)


def with_dataset_values(dataset: Dataset, values: Values) -> Dataset:
    """Return `dataset` with those of `values` that belong to it."""
    for path, value in values.items():
        if path.startswith(_DATASET):
            group, name = path.removeprefix(_DATASET).split(".")
            changed = getattr(dataset, group).model_copy(update={name: value})
            dataset = dataset.model_copy(update={group: changed})
    return dataset


def _fittable_parameters(calibration: Calibration, dataset: Dataset) -> dict[str, Parameter]:
    """Return every number that has bounds, by its name."""
    numbers = {name: value for name, value in _numbers(calibration) if name not in _NOT_FITTABLE}
    numbers |= {name: getattr(calibration, name) or 0.0 for name in _FROM_0}
    for group in ("inputs", "outputs"):
        lengths = getattr(dataset, group)
        numbers |= (
            {f"{_DATASET}{group}.{name}": value for name, value in _numbers(lengths)} if lengths else {}
        )
    bounded = {name: (value, bounds_of(name, value)) for name, value in numbers.items()}
    return {name: Parameter(name, value, bounds) for name, (value, bounds) in bounded.items() if bounds}


def _numbers(settings: BaseModel) -> Iterator[tuple[str, float]]:
    """Yield name and value of each number of `settings`."""
    for name, field in type(settings).model_fields.items():
        if field.annotation is float:
            yield name, getattr(settings, name)


def bounds_of(name: str, start: float) -> Bounds | None:
    """Return the bounds of the parameter `name`, its own or those of its unit; None without either."""
    if name in _LENGTH_PRIOR_WIDTHS:
        return Bounds(start / 2, start * 2, _LENGTH_PRIOR_WIDTHS[name], relative=True)
    unit_bounds = next((bounds for unit, bounds in _UNIT_BOUNDS.items() if name.endswith(unit)), None)
    return _OWN_BOUNDS.get(name, unit_bounds)
