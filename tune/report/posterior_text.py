"""What a search learned of the rack's parameters, in words: their names for people, what the trials told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tune.records.posterior_summary import Interval, ParameterPosterior, PosteriorSummary
from tune.report import formatting

_NAMES = {
    "prefill_scale": ("prefill kernels", "step time"),
    "decode_scale": ("decode kernels", "step time"),
    "ttft_overhead_s": ("front end before prefill", "time"),
    "frontend_message_s": ("front end while streaming", "time a message"),
    "kv_transfer_bytes_per_s": ("KV transfer", "bandwidth"),
    "kv_transfer_latency_s": ("start of a KV transfer", "time"),
    "no_graph_overhead_s": ("launches without CUDA graphs", "time a step"),
    "no_overlap_overhead_s": ("host work between steps", "time"),
    "kv_capacity": ("KV cache", "capacity"),
    "all_reduce": ("all-reduce", "time"),
    "prompt_mean": ("prompts", "mean length"),
    "prompt_sd": ("prompts' spread", "sd of lengths"),
    "last_decode_worker_scale": ("last decode worker", "step time"),
    "head_node_scale": ("workers beside the front end", "step time"),
    "large_batch_weight_reads": ("weight reads above 128 sequences", "number"),
    **{
        f"{pool}_scale_tp{tp}": (f"{pool} kernels at TP{tp}", "step time")
        for pool in ("prefill", "decode")
        for tp in (1, 2, 4, 8, 16)
    },
}
"""What a parameter of the simulated rack is to a performance engineer, and what its factor multiplies."""

Told = Literal["pinned down", "narrowed", "untouched"]

PINNED_FRAC, UNTOUCHED_FRAC = 0.5, 0.8
"""Width of an interval's logarithm now over that before: up to the first a parameter counts as pinned down,
from the second as untouched; our choice."""


@dataclass(frozen=True)
class ParameterRow:
    """A parameter as it is shown. `what`: what its factor multiplies. `width_frac`: its interval's logarithm
    now over that before."""

    name: str
    what: str
    before: Interval
    now: Interval
    width_frac: float
    told: Told

    @property
    def label(self) -> str:
        return f"{self.name}, {self.what}" if self.what else self.name


def factor(value: float) -> str:
    """A factor on the calibration, two decimals: ×0.85."""
    return f"×{value:.2f}" if value >= 0.1 else f"×{formatting.format_figure(value, 2)}"


def factors(of: Interval) -> str:
    """×0.85 (0.81 to 0.90)."""
    return f"{factor(of.median)} ({factor(of.low)[1:]} to {factor(of.high)[1:]})"


def parameter_rows(parameters: Iterable[ParameterPosterior]) -> list[ParameterRow]:
    """Every parameter, those that the trials told most of first."""
    shown = []
    for of in parameters:
        frac = _width_frac(of)
        told: Told = "narrowed"
        if frac <= PINNED_FRAC:
            told = "pinned down"
        elif frac >= UNTOUCHED_FRAC:
            told = "untouched"
        name, what = _NAMES.get(of.name, (of.name, ""))
        shown.append(ParameterRow(name, what, of.prior, of.posterior, frac, told))
    return sorted(shown, key=lambda row: row.width_frac)


def _width_frac(of: ParameterPosterior) -> float:
    before, now = _log_width(of.prior), _log_width(of.posterior)
    return now / before if 0 < before < math.inf else 1.0


def _log_width(of: Interval) -> float:
    return math.log(of.high / of.low) if of.low > 0 else math.inf


def learned_sentence(belief: PosteriorSummary) -> str:
    """One sentence: what the trials pinned down, what they narrowed, and what they say next to nothing of."""
    of_told = {told: _listed(names) for told in get_args(Told) if (names := names_of(belief, told))}
    verbs: dict[Told, str] = {
        "pinned down": "pinned down",
        "narrowed": "narrowed",
        "untouched": "say next to nothing of",
    }
    parts = [f"{verb} {of_told[told]}" for told, verb in verbs.items() if told in of_told]
    if not parts:
        return "No parameter of the rack is in doubt."
    said = "; ".join([*parts[:-1], f"and {parts[-1]}"] if len(parts) > 1 else parts)
    return f"The {formatting.plural(belief.trials_observed, 'trial')} told so far {said}."


def names_of(belief: PosteriorSummary, told: Told) -> list[str]:
    """Parameters of which the trials told so much, most first; with their factors where pinned down."""
    some = [row for row in parameter_rows(belief.parameters) if row.told == told]
    return [f"{row.name} {factors(row.now)}" if told == "pinned down" else row.name for row in some]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def gain_sentence(belief: PosteriorSummary) -> str:
    """What another trial is worth, as one sentence."""
    percent = belief.expected_improvement_frac * 100
    by = "less than 0.1" if percent < 0.1 else formatting.format_figure(percent, 2)
    return f"Another trial is expected to raise the best rate by {by} %."
