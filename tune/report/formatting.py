"""Numbers and configurations as people read them: units, significant digits, a command to paste."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable

from tune.records.outcome import BottleneckKind, Outcome
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value

NOTHING = "–"

_UNITS = {
    "_workers": "workers",
    "_qps": "queries/s",
    "_tokens": "tokens",
    "tokens_in_buffer": "tokens",
    "_seq_len": "tokens",
    "_batch_size": "sequences",
    "_parallel_size": "GPUs",
    "_interval": "tokens",
    "_fraction": "fraction",
    "_s": "s",
}


def format_figure(value: float | None, significant: int = 3) -> str:
    """A measured figure with so many significant digits and thousands separated; a dash for None."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant - 1}e}")
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def setting(value: Value) -> str:
    """A configured value, exact for integers and text, six significant digits for floats."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def seconds(value_s: float | None) -> str:
    return NOTHING if value_s is None else f"{format_figure(value_s)} s"


def milliseconds(value_s: float | None) -> str:
    return NOTHING if value_s is None else f"{format_figure(value_s * 1e3)} ms"


def rate(value_qps: float) -> str:
    """A request rate as it was set, up to four significant digits."""
    return f"{value_qps:.4g} QPS"


BINDS: dict[BottleneckKind, str] = {
    "prefill": "prefill",
    "decode_slots": "decode slots",
    "decode_kv": "decode KV cache",
    "decode_step_time": "decode step time",
    "kv_transfer": "KV transfer",
    "frontend": "front end",
    "rate": "nothing but the rate",
    "unknown": "not recorded",
}


def signed_percent(share: float) -> str:
    """A relative change such as +1.3 %, one decimal below 10 %."""
    percent = share * 100
    return f"{percent:+.1f} %" if abs(percent) < 10 else f"{percent:+,.0f} %"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


SPLIT_PATHS = ("split.prefill_workers", "split.decode_workers")

COMMAND = "python -m tune"


def quoted(override: str) -> str:
    """One override as a word of a POSIX shell."""
    return shlex.quote(override)


def command(texts: Iterable[str]) -> str:
    """The shell command that runs these Hydra overrides."""
    return " ".join([COMMAND, *map(quoted, texts)])


def unit(dimension: Dimension) -> str:
    """The unit of a dimension, from the name of the setting it moves; empty where it has none."""
    return next((text for end, text in _UNITS.items() if dimension.path.endswith(end)), "")


def setting_name(name: str, dimension: Dimension) -> str:
    """What a dimension moves: pool and engine's key for an engine, the dimension's own name otherwise."""
    pool, _, key = dimension.path.partition(".")
    if dimension.kind == "graph_family":
        return f"{pool} CUDA graphs"
    return f"{pool} {key.rpartition('.')[2]}" if pool in ("prefill", "decode") else name


def extent(dimension: Dimension) -> str:
    """The values a dimension may take: 10 to 16 in steps of 1, 8 to 18 on a log scale, or a list."""
    if not isinstance(dimension, IntDimension | FloatDimension):
        return ", ".join(setting(value) for value in dimension.values)
    text = f"{setting(dimension.low)} to {setting(dimension.high)}"
    if dimension.step is not None:
        text += f" in steps of {setting(dimension.step)}"
    if isinstance(dimension, FloatDimension) and dimension.log:
        text += ", log scale"
    return text


def split_label(outcome: Outcome) -> str | None:
    """The field's shorthand for a trial's split, such as 14P4D; None where its provenance has none."""
    label = outcome.provenance.get("split")
    return None if label is None else str(label)


def params(outcome: Outcome) -> dict[str, Value]:
    """The point that was proposed: dimension name to value."""
    return dict(outcome.provenance.get("params", {}))


def overrides(outcome: Outcome) -> list[str] | None:
    """The Hydra overrides that measure this configuration again: none for the configuration as shipped.

    None where they were not recorded.
    """
    texts = outcome.provenance.get("overrides")
    return None if texts is None else [str(text) for text in texts]


def describe_configuration(outcome: Outcome, space: dict[str, Dimension]) -> str:
    """The configuration of a trial in a few words: its split, then every other setting of the space."""
    label = split_label(outcome)
    words = [] if label is None else [label]
    for name, value in params(outcome).items():
        dimension = space.get(name)
        path = dimension.path if dimension else name
        if path != "load.target_qps" and (label is None or path not in SPLIT_PATHS):
            words.append(f"{setting_name(name, dimension) if dimension else name} {setting(value)}")
    return ", ".join(words) or f"trial {outcome.number}"
