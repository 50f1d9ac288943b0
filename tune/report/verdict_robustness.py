"""Describe how far a verdict depends on the shuffle: the order of the dataset's prompt and answer lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from tune.records.outcome import LatencySpread, Outcome, ShuffleSpread
from tune.report import formatting
from tune.spec.load import Slo
from tune.spec.metrics import LIMITS, LatencyMetric
from tune.spec.space import Dimension

SHUFFLES = "shuffles (orders of the dataset's lengths)"


def is_uncertain(outcome: Outcome, slo: Slo) -> bool:
    """Return True if a shuffle gives the opposite verdict, or a figure one standard deviation higher would.

    Returns False if no spread is recorded: the probe was then far from its limits, or ran once.
    """
    spread = outcome.spread
    if spread is None or not outcome.valid:
        return False
    if not outcome.feasible:
        return spread.slo_held > 0
    pairs = ((spread.of(limit), limit_s) for limit, limit_s in slo.limits)
    exceeds = any(latency and latency.mean + latency.sd > limit_s for latency, limit_s in pairs)
    return exceeds or spread.slo_held < spread.shuffles


def verdict_over_shuffles(outcome: Outcome, slo: Slo) -> str:
    """Return in how many shuffles the SLO holds and whether the verdict is uncertain; needs a spread."""
    spread = outcome.spread
    assert spread is not None
    held = f"the SLO holds in {spread.slo_held} of {spread.shuffles} {SHUFFLES}"
    if not is_uncertain(outcome, slo):
        return held
    opposite = "a violation" if outcome.feasible else "a pass"
    return f"the verdict is uncertain: {held}, and {opposite} lies within their spread"


def latencies_over_shuffles(spread: ShuffleSpread) -> Iterator[str]:
    """Yield the mean, standard deviation and extremes of each figure over the shuffles."""
    for limit in LIMITS:
        if latency := spread.of(limit):
            show = partial(formatting.format_latency, limit.latency)
            mean, sd = show(latency.mean), show(latency.sd)
            yield f"{limit.label} {mean} ± {sd} (sd), {show(latency.min)} to {show(latency.max)}"


def sd_over_shuffles(spread: LatencySpread | None, metric: LatencyMetric) -> str:
    """Return the standard deviation of a latency as a suffix of a figure; empty if none is recorded."""
    return f", sd {formatting.format_latency(metric, spread.sd)} over shuffles" if spread else ""


def verdict_notes(
    outcomes: Sequence[Outcome], top: Outcome, slo: Slo, space: dict[str, Dimension]
) -> list[str]:
    """Return notes on the verdict of `top`, and on the fastest of `outcomes` with a certain verdict."""
    if top.spread is None:
        return []
    latencies = "; ".join(latencies_over_shuffles(top.spread))
    notes = [f"Over {top.spread.shuffles} {SHUFFLES} the SLO holds in {top.spread.slo_held}; {latencies}."]
    if is_uncertain(top, slo):
        notes += _fastest_certain(outcomes, top, slo, space)
    return notes


def _fastest_certain(
    outcomes: Sequence[Outcome], top: Outcome, slo: Slo, space: dict[str, Dimension]
) -> Iterator[str]:
    """Yield a note on the fastest feasible trial with a certain verdict, if there is one."""
    certain = [o for o in outcomes if o.feasible and not is_uncertain(o, slo)]
    best = max(certain, key=lambda o: o.output_tps_per_gpu or 0.0, default=None)
    if best is None or not best.output_tps_per_gpu or not top.output_tps_per_gpu:
        return
    change = formatting.signed_percent(best.output_tps_per_gpu / top.output_tps_per_gpu - 1)
    yield (
        "The fastest configuration with a certain verdict: "
        f"{formatting.describe_configuration(best, space)} at "
        f"{formatting.rate(best.target_qps)} (trial {best.number}), "
        f"{formatting.format_figure(best.output_tps_per_gpu, 4)} tokens/s/GPU, {change} against the best."
    )
