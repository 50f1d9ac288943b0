"""Bind a point of a sweep to the configuration that it varies, which gives a new TrialSpec."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tune.errors import ConfigurationError
from tune.spec.engine import Engine
from tune.spec.engine_settings import with_both_pools
from tune.spec.environment import SECRET_VALUE
from tune.spec.space import (
    ChoiceDimension,
    Dimension,
    FloatDimension,
    GraphFamily,
    GraphFamilyDimension,
    IntDimension,
    OrderedDimension,
    Sweep,
    Value,
)
from tune.spec.split import ALL_ROLES, ROLES, filled_split
from tune.spec.trial import TrialSpec

Point = Mapping[str, Value]


def bind_point(base: TrialSpec, sweep: Sweep, point: Point) -> TrialSpec:
    """Return `base` with every dimension of `sweep` set to its value in `point`.

    Graph families and `fill_decode` depend on the other values, so they are derived last.

    Parameters
    ----------
    base
        The configuration that the sweep varies.
    sweep
        Names the setting of each dimension.
    point
        The value of each dimension, by its name.

    Returns
    -------
    The configuration with these values.

    Raises
    ------
    ConfigurationError
        When a dimension's path is not a setting of a trial, or a value does not fit it, or aggregated workers
        have no settings.
    """
    plain = with_both_pools({"aggregated": None} | base.model_dump(mode="json"))
    for group in (*ALL_ROLES, "stack"):
        if holder := getattr(base, group):
            plain[group]["env"] = dict(holder.env)  # left out where there are none
    families: dict[str, GraphFamily] = {}
    for name, dimension in sweep.space.items():
        if isinstance(dimension, GraphFamilyDimension):
            families[dimension.path] = point[name]  # type: ignore[assignment]
        else:
            _set(plain, base, name, dimension.path, point[name])
    if base.aggregated is None and not plain["split"].get("aggregated_workers"):
        plain["aggregated"] = None
    try:
        spec = TrialSpec.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise _misfit(error.errors()[0], base, sweep, point) from None
    for role, family in families.items():
        if engine := getattr(spec, role):
            spec = spec.model_copy(update={role: with_graph_family(engine, family)})
    spec = spec.with_own_pools()
    if sweep.fill_decode:
        split = filled_split(spec.hardware, spec.prefill, spec.decode, spec.split)
        spec = spec.model_copy(update={"split": split})
    return spec


def with_graph_family(engine: Engine, family: GraphFamily) -> Engine:
    """Return `engine` with the CUDA graph sizes that `family` gives for its largest batch.

    It has no CUDA graphs where no size fits. Padding stays as it is; it is on where the engine had no graphs.
    """
    largest = engine.max_sequences
    sizes: tuple[int, ...] = ()
    match family:
        case "listed":
            sizes = tuple(size for size in engine.graph_batch_sizes if size <= largest)
        case "powers_of_two":
            sizes = tuple(2**k for k in range(largest.bit_length()))
        case "steps_of_32":
            sizes = tuple(range(32, largest + 1, 32)) or (largest,)
    return engine.with_graph_sizes(sizes)


def locate_point(spec: TrialSpec, sweep: Sweep) -> Point | None:
    """Return the point that gives `spec` when it is bound to `spec`; None where the space has none."""
    candidates = {
        name: [value for value in _candidates(dimension, spec, sweep) if contains(dimension, value)]
        for name, dimension in sweep.space.items()
    }
    if not all(candidates.values()):
        return None
    point = {name: values[0] for name, values in candidates.items()}
    for name, dimension in sweep.space.items():
        if isinstance(dimension, GraphFamilyDimension) and dimension.path in spec.split.roles:
            engine: Engine = getattr(spec, dimension.path)
            families = [family for family in dimension.values if with_graph_family(engine, family) == engine]
            if not families:
                return None
            point[name] = families[0]
    return point if bind_point(spec, sweep, point) == spec.with_own_pools() else None


def contains(dimension: Dimension, value: Any) -> bool:
    """Return whether `value` is one of the values that `dimension` may take."""
    match dimension:
        case IntDimension():
            return (
                isinstance(value, int)
                and dimension.low <= value <= dimension.high
                and (value - dimension.low) % dimension.step == 0
            )
        case FloatDimension():
            if not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
                return False
            if dimension.step is None:
                return True
            steps = (value - dimension.low) / dimension.step
            return abs(steps - round(steps)) < 1e-9
        case OrderedDimension() | ChoiceDimension() | GraphFamilyDimension():
            return value in dimension.values


def _candidates(dimension: Dimension, spec: TrialSpec, sweep: Sweep) -> list[Any]:
    """Return the values that `spec` may have for a dimension; a default that records leave out is one too.

    For a pool that it lacks, any value gives `spec`; so does any number of aggregated workers where as many
    are taken as fit.
    """
    if isinstance(dimension, GraphFamilyDimension):
        return list(dimension.values)
    values = _some_values(dimension)
    if _is_idle(dimension.path, spec):
        return values
    if sweep.fill_decode and spec.split.aggregated_workers and dimension.path == "split.aggregated_workers":
        return [value for value in values if value]
    node: Any = spec
    for key in dimension.path.split("."):
        if node is None:
            break
        if isinstance(node, BaseModel):
            node = dict(node).get(key)
        elif isinstance(node, Mapping):
            node = node.get(key)
        else:
            return []
    return [tuple(node) if isinstance(node, list) else node]


def _some_values(dimension: IntDimension | FloatDimension | OrderedDimension | ChoiceDimension) -> list[Any]:
    """Return the values of a dimension, of a range its ends."""
    if isinstance(dimension, IntDimension | FloatDimension):
        return [dimension.low, dimension.high]
    return list(dimension.values)


def _is_idle(path: str, spec: TrialSpec) -> bool:
    """Return whether the setting at `path` is one of a pool that `spec` lacks."""
    group, _, name = path.partition(".")
    idle = set(ALL_ROLES) - set(spec.split.roles)
    return group in idle or (group == "split" and name in {f"{role}_workers" for role in idle & set(ROLES)})


def _set(plain: dict[str, Any], base: TrialSpec, name: str, path: str, value: Value) -> None:
    """Set the value at `path`; a group on the way that is null becomes one with this setting alone.

    Null in a group that is null changes nothing.
    """
    *parents, leaf = path.split(".")
    node = plain
    for key in parents:
        if node.get(key) is None:
            if value is None:
                return
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise _no_setting(base, name, path)
    node[leaf] = value


def _misfit(detail: ErrorDetails, base: TrialSpec, sweep: Sweep, point: Point) -> ConfigurationError:
    """Return the error that names the dimension, its value and what its setting expects."""
    found = [str(part) for part in detail["loc"]]
    name, dimension = max(
        ((name, dimension) for name, dimension in sweep.space.items() if dimension.kind != "graph_family"),
        key=lambda item: _common_parts(item[1].path.split("."), found),
    )
    if detail["type"] == "extra_forbidden":
        return _no_setting(base, name, dimension.path)
    if detail["type"] == "missing":
        return ConfigurationError(
            f"sweep.space.{name}: {dimension.path} is in a group that the configuration leaves out, and "
            f"{'.'.join(found)} has no default; expected a value of it in the configuration."
        )
    value = "a value" if detail["type"] == SECRET_VALUE else json.dumps(point[name])
    expected = detail["msg"].replace("Input should be", "expected")
    return ConfigurationError(f"sweep.space.{name}: found {value} for {dimension.path}; {expected}.")


def _common_parts(path: list[str], other: list[str]) -> int:
    """Return how many parts two paths have in common from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False)))


def _no_setting(base: TrialSpec, name: str, path: str) -> ConfigurationError:
    """Return the error for a dimension whose path is no setting, with the setting that is most like it."""
    near = get_close_matches(path, _setting_paths(base.model_dump(mode="json")), n=1)
    hint = f"did you mean {near[0]}?" if near else "expected one such as split.prefill_workers."
    return ConfigurationError(
        f"sweep.space.{name}.path: found {path!r}, which is not a setting of a trial; {hint} "
        "python -m tune --cfg job lists them."
    )


def _setting_paths(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting that is no group."""
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _setting_paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
