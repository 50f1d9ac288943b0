"""A study whose search learned the rack, for the tests of the report."""

from __future__ import annotations

import math
import random

from support.synthetic_search import asked, searched
from support.synthetic_study import unmeasured
from tune.records.outcome import CapacityQps, Outcome
from tune.records.posterior_summary import (
    HypothesisPosterior,
    Interval,
    ParameterPosterior,
    PosteriorSummary,
    TrialPosterior,
)
from tune.records.proposals import Proposal

PARAMETERS = {
    "prefill_scale": ((0.6, 1.0, 1.65), (0.79, 0.83, 0.87)),
    "decode_scale": ((0.6, 1.0, 1.65), (0.95, 1.06, 1.19)),
    "prefill_scale_tp2": ((0.85, 1.0, 1.18), (0.87, 0.99, 1.12)),
    "kv_capacity": ((0.8, 1.0, 1.1), (0.85, 0.98, 1.05)),
    "kv_transfer_bytes_per_s": ((0.2, 1.0, 5.0), (0.24, 1.0, 4.2)),
    "ttft_overhead_s": ((0.4, 1.0, 2.5), (0.5, 1.0, 1.6)),
    "all_reduce": ((0.6, 1.0, 1.65), (0.62, 1.02, 1.65)),
    "a_new_one": ((0.5, 1.0, 2.0), (1.5, 1.6, 1.9)),
}
"""Low, median and high of the factor, before any trial and now."""


def interval(low: float, median: float, high: float) -> Interval:
    return Interval(low=low, median=median, high=high)


def learned_study(count: int = 16, seed: int = 3) -> tuple[list[Outcome], list[Proposal], PosteriorSummary]:
    """The baseline, then `count` - 1 trials whose expectations sharpen; some given up, one crashed."""
    draw = random.Random(seed)
    outcomes, proposals, told = [], [], []
    for number in range(count):
        sd = 0.02 + 0.22 / (1 + 0.5 * number)
        true_qps = 15.2 + 0.2 * number * draw.uniform(0, 1) - (number % 5 == 3) * 2.6
        median = true_qps * math.exp(draw.gauss(0, 1) * sd)
        reach = math.exp(1.645 * sd)
        expected = None if number == 0 else interval(median / reach, median, median * reach)
        outcome = _measured(number, true_qps)
        outcomes.append(outcome)
        source = "baseline" if number == 0 else "surrogate"
        proposals.append(
            Proposal(
                number=number,
                params={},
                source=source,
                trial_id=outcome.trial_id,
                expected_capacity_qps=expected,
            )
        )
        if outcome.status == "measured":
            off_sd = -2.7 if number == 5 else 2.1 if number == 9 else draw.gauss(0, 0.7)
            simulated = true_qps / (1 + 0.03 * off_sd)
            told.append(
                TrialPosterior(
                    trial_id=outcome.trial_id,
                    number=number,
                    measured_qps=true_qps,
                    simulated_qps=interval(0.97 * simulated, simulated, 1.03 * simulated),
                    off_sd=off_sd,
                )
            )
    return outcomes, proposals, belief(tuple(told))


def belief(trials: tuple[TrialPosterior, ...]) -> PosteriorSummary:
    return PosteriorSummary(
        schema=2,
        trials_told=len(trials),
        parameters=tuple(
            ParameterPosterior(name=name, before=interval(*before), now=interval(*now))
            for name, (before, now) in PARAMETERS.items()
        ),
        hypotheses=(
            HypothesisPosterior(name="last_decode_worker_scale=1.15", prior_frac=0.3, posterior_frac=0.04),
            HypothesisPosterior(name="router=random", prior_frac=0.25, posterior_frac=0.57),
        ),
        trials=trials,
        expected_gain_frac=0.0123,
        calibration={"prefill_scale": 0.743},
    )


def _measured(number: int, capacity_qps: float) -> Outcome:
    prefill = 14 - number % 4
    if number in (4, 11):
        reason = "the engine ran out of memory while it captured CUDA graphs"
        return unmeasured(number, "infeasible", reason, prefill=prefill)
    low = round(0.988 * capacity_qps, 2)
    if number % 5 == 3:
        found = CapacityQps(low=None, high=None, censored=True, boundary=capacity_qps, beat=15.5)
        probes = (asked(15.5, 9.0, full=False),)
        reason = f"given up: expected to hold {capacity_qps:.4g} QPS, below 15.5"
        return searched(
            number,
            prefill=prefill,
            probes=probes,
            capacity_qps=found,
            source="surrogate",
            feasible=False,
            reason=reason,
        )
    probes = (asked(low * 1.02, 5.1, full=False), asked(low, 4.3))
    bracket = (low, None, capacity_qps)
    return searched(number, prefill=prefill, probes=probes, bracket=bracket, source="surrogate")
