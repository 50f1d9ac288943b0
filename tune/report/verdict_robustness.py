"""How far a verdict depends on the order of prompt lengths, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tune.records.outcome import LatencySpread, Outcome, ShuffleSpread
from tune.report import formatting
from tune.spec.load import Slo
from tune.spec.space import Dimension

Show = Callable[[float | None], str]


def is_uncertain(outcome: Outcome, slo: Slo) -> bool:
    """Whether a verdict is within its spread of the other one: some order gives it, or would one sd away.

    False where no spread is recorded: then the probe was far from its limits, or ran once.
    """
    spread = outcome.spread
    if spread is None or not outcome.valid:
        return False
    if not outcome.feasible:
        return spread.slo_held > 0
    pairs = ((spread.ttft_p99_s, slo.ttft_p99_s), (spread.tpot_p99_s, slo.tpot_p99_s))
    passes = any(of and limit_s is not None and of.mean + of.sd > limit_s for of, limit_s in pairs)
    return passes or spread.slo_held < spread.shuffles


def verdict_over_orders(outcome: Outcome, slo: Slo) -> str:
    """In how many orders the SLO held, and whether that puts the verdict in doubt. Needs a spread."""
    spread = outcome.spread
    assert spread is not None
    held = f"the SLO holds in {spread.slo_held} of {spread.shuffles} orders of prompt lengths"
    if not is_uncertain(outcome, slo):
        return held
    return f"within its spread of {'breaking' if outcome.feasible else 'holding'} the SLO: {held}"


def figures_over_orders(spread: ShuffleSpread) -> Iterator[str]:
    """Each p99 over the orders: mean, standard deviation and extremes."""
    for name, of, show in (
        ("p99 TTFT", spread.ttft_p99_s, formatting.seconds),
        ("p99 TPOT", spread.tpot_p99_s, formatting.milliseconds),
    ):
        if of:
            yield f"{name} {show(of.mean)} ± {show(of.sd)} (sd), {show(of.min)} to {show(of.max)}"


def sd(of: LatencySpread | None, show: Show) -> str:
    """The standard deviation, to stand behind a figure; empty where none is recorded."""
    return f", sd {show(of.sd)} over orders" if of else ""


def verdict_note(
    outcomes: Sequence[Outcome], top: Outcome, slo: Slo, space: dict[str, Dimension]
) -> list[str]:
    """What to know of the verdict on `top`, and the fastest of `outcomes` that is not in doubt."""
    if top.spread is None:
        return []
    figures = "; ".join(figures_over_orders(top.spread))
    held = f"the SLO holds in {top.spread.slo_held}"
    notes = [f"Over {top.spread.shuffles} orders of prompt lengths {held}; {figures}."]
    if is_uncertain(top, slo):
        notes += _surest(outcomes, top, slo, space)
    return notes


def _surest(
    outcomes: Sequence[Outcome], top: Outcome, slo: Slo, space: dict[str, Dimension]
) -> Iterator[str]:
    sure = [o for o in outcomes if o.feasible and not is_uncertain(o, slo)]
    best = max(sure, key=lambda o: o.output_tps_per_gpu or 0.0, default=None)
    if best is None or not best.output_tps_per_gpu or not top.output_tps_per_gpu:
        return
    change = formatting.signed_percent(best.output_tps_per_gpu / top.output_tps_per_gpu - 1)
    yield (
        f"The fastest that no order of lengths puts in doubt: {formatting.describe_configuration(best, space)} at "
        f"{formatting.rate(best.target_qps)} (trial {best.number}), "
        f"{formatting.format_figure(best.output_tps_per_gpu, 4)} tokens/s/GPU, {change}."
    )
