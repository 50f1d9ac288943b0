"""Describe how far a verdict depends on the shuffle: the order of the dataset's prompt and answer lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from tune.analysis.hold_probability import hold_probability
from tune.analysis.shuffles import NEAR_FRAC
from tune.records.outcome import LatencySpread, Outcome, ShuffleSpread
from tune.report import formatting
from tune.report.capacity_text import arrivals_s, is_capacity_search
from tune.report.trial_status import trial_status
from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.load import Slo
from tune.spec.metrics import LIMITS, TTFT_P99, LatencyMetric
from tune.spec.space import Dimension

SIMULATED_SD = "5 to 12 %"
"""Variation of p99 TTFT over shuffles (docs/simulator.md, "How far to trust it")."""

STEADY_LATENCIES = 6.0
"""Median latencies that arrivals last in a run whose throughput is within 1 % of that of a long one. Measured
with prompts of 7,372 and answers of 922 tokens: 7 % less than in a long run at 3.1, 0.5 % less at 7."""

SHUFFLES = "shuffles (orders of the dataset's lengths)"


def is_uncertain(outcome: Outcome, slo: Slo) -> bool:
    """Return True if a shuffle gives the opposite verdict, or a figure one standard deviation higher would.

    Returns False if no spread is recorded: the probe was then far from its limits, or ran once.
    """
    spread = outcome.spread
    if spread is None or not outcome.valid:
        return False
    if not outcome.feasible:
        return spread.slo_met > 0
    pairs = ((spread.of(limit), limit_s) for limit, limit_s in slo.limits)
    exceeds = any(latency and latency.mean + latency.sd > limit_s for latency, limit_s in pairs)
    return exceeds or spread.slo_met < spread.shuffles


def verdict_over_shuffles(outcome: Outcome, slo: Slo) -> str:
    """Return in how many shuffles the SLO holds, how probably in a further one, and how certain that is.

    The outcome has a spread.
    """
    spread = outcome.spread
    assert spread is not None
    held = f"the SLO holds in {spread.slo_met} of {spread.shuffles} {SHUFFLES}, {_in_another(spread)}"
    if not is_uncertain(outcome, slo):
        return held
    if trial_status(outcome) == "some_shuffles":
        return f"the verdict is uncertain: {held}"
    return f"the verdict is uncertain: {held}, and a violation lies within their spread"


def expected_of_repeat(outcome: Outcome) -> str:
    """Return in how many shuffles a full run at the verified rate of a capacity search holds.

    Empty where no search ran, or no further shuffles.
    """
    spread = outcome.spread
    if spread is None or not outcome.feasible or not is_capacity_search(outcome):
        return ""
    return f"a full run at this rate holds in {spread.slo_met} of {spread.shuffles} shuffles"


def throughput_note(outcome: Outcome) -> str:
    """Return that the rack was filling for much of the run, so that its output is too low; else empty.

    Nothing is said about a run that violates its SLO: a saturated rack has long latencies and all its output.
    """
    runs = [probe for probe in outcome.probes if probe.full and probe.target_qps == outcome.target_qps]
    if not outcome.feasible or not runs or outcome.latency_s is None:
        return ""
    lasted_s, median_s = arrivals_s(runs[-1]), outcome.latency_s.p50
    if lasted_s >= STEADY_LATENCIES * median_s:
        return ""
    return (
        f"arrivals lasted {formatting.format_figure(lasted_s)} s, {lasted_s / median_s:.1f} median "
        "latencies: the rack was filling for much of that, so its output is too low by some percent; "
        f"load.min_duration_s={math.ceil(STEADY_LATENCIES * median_s / 10) * 10} or more compares better"
    )


def _in_another(spread: ShuffleSpread) -> str:
    """Return the probability that the SLO holds in a further shuffle, with its interval."""
    probability = hold_probability(spread)
    interval = f"{100 * probability.low:.0f} to {100 * probability.high:.0f} %"
    return f"in another one with probability {100 * probability.estimate:.0f} % ({interval})"


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
    note = throughput_note(top)
    filling = [f"{note[0].upper()}{note[1:]}."] if note else []
    if top.spread is None:
        return [*filling, *_one_run(top)]
    latencies = "; ".join(latencies_over_shuffles(top.spread))
    notes = [
        *filling,
        f"Over {top.spread.shuffles} {SHUFFLES} the SLO holds in {top.spread.slo_met}, "
        f"{_in_another(top.spread)}; {latencies}.",
    ]
    if is_uncertain(top, slo):
        notes += _fastest_certain(outcomes, top, slo, space)
    return notes


def _one_run(top: Outcome) -> list[str]:
    """Return what one run in one shuffle leaves open, where it is near a limit on a real rack.

    Far from every limit the simulated rack repeats no run.
    """
    worst, backend = top.constraints.worst(), top.provenance.get("backend")
    live = backend is not None and BACKEND_DECLARATIONS[backend].capabilities.real_time
    if not top.valid or not live or worst is None or abs(math.expm1(worst)) > NEAR_FRAC:
        return []
    return [
        "One run in one shuffle was measured, so how often another shuffle holds is not known; on the "
        f"simulated rack {TTFT_P99.label} varies by {SIMULATED_SD} (sd) from shuffle to shuffle."
    ]


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
        f"{best.load} (trial {best.number}), "
        f"{formatting.format_figure(best.output_tps_per_gpu, 4)} tokens/s/GPU, {change} against the best."
    )
