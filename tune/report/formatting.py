"""Format numbers and configurations for people: units, significant digits, a command to paste."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable

from tune.records.outcome import BottleneckKind, Outcome
from tune.spec.engine_table import settings_class
from tune.spec.metrics import LatencyMetric
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value
from tune.spec.split import ALL_ROLES

DASH = "–"
"""Shown for a figure that was not measured."""

_UNITS = {
    "_workers": "workers",
    "_qps": "queries/s",
    "_tokens": "tokens",
    "_frac": "fraction",
    "_s": "s",
}
"""Unit of a setting outside of `prefill` and `decode`, by the end of its name; the first match counts."""


def format_figure(value: float | None, significant: int = 3) -> str:
    """Return a figure with `significant` digits and separated thousands; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant - 1}e}")
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def setting(value: Value) -> str:
    """Return a configured value: exact for integers and text, six significant digits for floats."""
    if value is None or isinstance(value, tuple):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def format_latency(metric: LatencyMetric, value_s: float | None) -> str:
    """Return a latency in its shown unit with three significant digits; a dash for None."""
    if value_s is None:
        return DASH
    return f"{format_figure(value_s * metric.shown_scale)} {metric.shown_unit}"


def rate(value_qps: float) -> str:
    """Return a request rate with up to four significant digits, such as 16.05 QPS."""
    return f"{value_qps:.4g} QPS"


BOTTLENECK_NAMES: dict[BottleneckKind, str] = {
    "prefill": "prefill",
    "decode_slots": "decode slots",
    "decode_kv": "decode KV cache",
    "decode_step_time": "decode step time",
    "kv_transfer": "KV transfer",
    "frontend": "frontend",
    "rate": "none, only the offered rate",
    "users": "none, only the number of users",
    "unknown": "unknown, not recorded",
}


def signed_percent(share: float) -> str:
    """Return a relative change such as +1.3 %, with one decimal below 10 %."""
    percent = share * 100
    return f"{percent:+.1f} %" if abs(percent) < 10 else f"{percent:+,.0f} %"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 trial" or "1,200 trials"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


SPLIT_PATHS = tuple(f"split.{role}_workers" for role in ALL_ROLES)
"""Settings that the label of a split, such as 14P4D or 18A, shows."""

COMMAND = "python -m tune"
"""Start of every command that the report shows."""


def quoted(override: str) -> str:
    """Return one override quoted for a POSIX shell."""
    return shlex.quote(override)


def command(texts: Iterable[str]) -> str:
    """Return the shell command that runs these Hydra overrides."""
    return " ".join([COMMAND, *map(quoted, texts)])


def unit(dimension: Dimension, engine: str) -> str:
    """Return the unit of a dimension: as the engine states it, or by the name of its setting.

    Empty if it has none.
    """
    pool, _, key = dimension.path.partition(".")
    if pool in ALL_ROLES:
        return settings_class(engine).MEANINGS.get(key, ("", ""))[0]
    return next((name for suffix, name in _UNITS.items() if dimension.path.endswith(suffix)), "")


def setting_name(name: str, dimension: Dimension) -> str:
    """Return the pool and its key for an engine setting, the dimension's own name otherwise."""
    pool, _, key = dimension.path.partition(".")
    if dimension.kind == "graph_family":
        return f"{pool} CUDA graphs"
    return f"{pool} {key.rpartition('.')[2]}" if pool in ALL_ROLES else name


def value_range(dimension: Dimension) -> str:
    """Return the values of a dimension: "10 to 16 in steps of 1", "8 to 18, log scale", or a list."""
    if not isinstance(dimension, IntDimension | FloatDimension):
        return ", ".join(setting(value) for value in dimension.values)
    text = f"{setting(dimension.low)} to {setting(dimension.high)}"
    if dimension.step is not None:
        text += f" in steps of {setting(dimension.step)}"
    if isinstance(dimension, FloatDimension) and dimension.log:
        text += ", log scale"
    return text


def split_label(outcome: Outcome) -> str | None:
    """Return the label of a trial's split, such as 14P4D, or None if its provenance has none."""
    label = outcome.provenance.get("split")
    return None if label is None else str(label)


def params(outcome: Outcome) -> dict[str, Value]:
    """Return the proposed point: values by dimension name, a list as a tuple."""
    point = outcome.provenance.get("params", {})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in point.items()}


def overrides(outcome: Outcome) -> list[str] | None:
    """Return the Hydra overrides that measure this configuration again; None if they were not recorded.

    The list is empty for the configuration as shipped.
    """
    texts = outcome.provenance.get("overrides")
    return None if texts is None else [str(text) for text in texts]


def describe_configuration(outcome: Outcome, space: dict[str, Dimension]) -> str:
    """Return the configuration of a trial: its split, then every other setting of the space and its pools."""
    label = split_label(outcome)
    parts = [] if label is None else [label]
    idle = {role for role in ALL_ROLES if label and role[0].upper() not in label}
    for name, value in params(outcome).items():
        dimension = space.get(name)
        path = dimension.path if dimension else name
        shown = path != "load.target_qps" and path.partition(".")[0] not in idle
        if shown and (label is None or path not in SPLIT_PATHS):
            parts.append(f"{setting_name(name, dimension) if dimension else name} {setting(value)}")
    return ", ".join(parts) or f"trial {outcome.number}"
