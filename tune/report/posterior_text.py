"""Describe what the surrogate search learned about the simulator's parameters, in an engineer's words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tune.records.posterior_summary import Interval, ParameterPosterior, PosteriorSummary
from tune.report import formatting

_PARAMETER_NAMES = {
    "prefill_scale": ("prefill kernels", "step time"),
    "decode_scale": ("decode kernels", "step time"),
    "ttft_overhead_s": ("frontend before prefill", "time"),
    "frontend_message_s": ("frontend while streaming", "time per message"),
    "kv_transfer_bytes_per_s": ("KV transfer", "bandwidth"),
    "kv_transfer_latency_s": ("start of a KV transfer", "time"),
    "no_graph_overhead_s": ("launches without CUDA graphs", "time per step"),
    "no_overlap_overhead_s": ("host work between steps", "time"),
    "kv_capacity": ("KV cache", "capacity"),
    "all_reduce": ("all-reduce", "time"),
    "prompt_mean": ("prompts", "mean length"),
    "prompt_sd": ("prompt spread", "sd of lengths"),
    "last_decode_worker_scale": ("last decode worker", "step time"),
    "head_node_scale": ("workers on the frontend's node", "step time"),
    "large_batch_weight_reads": ("weight reads above 128 sequences", "number"),
    **{
        f"{pool}_scale_tp{tp}": (f"{pool} kernels at TP{tp}", "step time")
        for pool in ("prefill", "decode")
        for tp in (1, 2, 4, 8, 16)
    },
}
"""Name of each simulator parameter for an engineer, and the quantity that its factor multiplies."""

Narrowing = Literal["pinned down", "narrowed", "unchanged"]

PINNED_WIDTH_FRAC, UNCHANGED_WIDTH_FRAC = 0.5, 0.8
"""Width of the posterior interval divided by that of the prior, both on a log scale.

Up to the first value a parameter counts as pinned down, from the second as unchanged; chosen here.
"""


@dataclass(frozen=True)
class ParameterRow:
    """Hold a simulator parameter as it is shown.

    `quantity` is what its factor multiplies. `width_frac` is the width of the posterior interval divided by
    that of the prior, both on a log scale.
    """

    name: str
    quantity: str
    prior: Interval
    posterior: Interval
    width_frac: float
    narrowing: Narrowing

    @property
    def label(self) -> str:
        """Return the name with its quantity, such as "KV transfer, bandwidth"."""
        return f"{self.name}, {self.quantity}" if self.quantity else self.name


def format_factor(value: float) -> str:
    """Return a factor on the calibration with two decimals, such as ×0.85."""
    return f"×{value:.2f}" if value >= 0.1 else f"×{formatting.format_figure(value, 2)}"


def format_factors(interval: Interval) -> str:
    """Return a factor with its 90 % interval, such as ×0.85 (0.81 to 0.90)."""
    low, high = format_factor(interval.low)[1:], format_factor(interval.high)[1:]
    return f"{format_factor(interval.median)} ({low} to {high})"


def parameter_rows(parameters: Iterable[ParameterPosterior]) -> list[ParameterRow]:
    """Return every parameter, those whose interval narrowed most first.

    A parameter without an entry in _PARAMETER_NAMES keeps its name in posterior.json.
    """
    rows = []
    for parameter in parameters:
        width_frac = _width_frac(parameter)
        narrowing: Narrowing = "narrowed"
        if width_frac <= PINNED_WIDTH_FRAC:
            narrowing = "pinned down"
        elif width_frac >= UNCHANGED_WIDTH_FRAC:
            narrowing = "unchanged"
        name, quantity = _PARAMETER_NAMES.get(parameter.name, (parameter.name, ""))
        rows.append(ParameterRow(name, quantity, parameter.prior, parameter.posterior, width_frac, narrowing))
    return sorted(rows, key=lambda row: row.width_frac)


def _width_frac(parameter: ParameterPosterior) -> float:
    """Return the log width of the posterior divided by that of the prior; 1 if the prior's is not finite."""
    prior, posterior = _log_width(parameter.prior), _log_width(parameter.posterior)
    return posterior / prior if 0 < prior < math.inf else 1.0


def _log_width(interval: Interval) -> float:
    """Return ln(high / low), infinite if `low` is not positive."""
    return math.log(interval.high / interval.low) if interval.low > 0 else math.inf


def learned_sentences(posterior: PosteriorSummary) -> str:
    """Return which parameters the trials pinned down, which they narrowed, and which they did not change."""
    names = {kind: _join(listed) for kind in get_args(Narrowing) if (listed := names_of(posterior, kind))}
    clauses: dict[Narrowing, str] = {
        "pinned down": "pinned down {}",
        "narrowed": "narrowed {}",
        "unchanged": "show almost nothing about {}",
    }
    parts = [clause.format(names[kind]) for kind, clause in clauses.items() if kind in names]
    if not parts:
        return "No parameter of the simulator is uncertain."
    text = "; ".join([*parts[:-1], f"and {parts[-1]}"] if len(parts) > 1 else parts)
    sentence = f"The {formatting.plural(posterior.trials_observed, 'trial')} observed so far {text}."
    if "pinned down" not in names:
        return sentence
    return f"{sentence} A factor multiplies the calibrated value; its 90 % interval is in parentheses."


def names_of(posterior: PosteriorSummary, narrowing: Narrowing) -> list[str]:
    """Return the names of parameters of one kind, most narrowed first; with factors if pinned down."""
    rows = [row for row in parameter_rows(posterior.parameters) if row.narrowing == narrowing]
    return [
        f"{row.name} {format_factors(row.posterior)}" if narrowing == "pinned down" else row.name
        for row in rows
    ]


def _join(names: Sequence[str]) -> str:
    """Return names as a list in prose: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def gain_sentence(posterior: PosteriorSummary) -> str:
    """Return by how much one more trial is expected to raise the best rate, as a sentence."""
    percent = posterior.expected_improvement_frac * 100
    gain = "less than 0.1" if percent < 0.1 else formatting.format_figure(percent, 2)
    return f"Another trial is expected to raise the best rate by {gain} %."
