"""Build a study of a surrogate search, with its posterior, for the tests of the report."""

from __future__ import annotations

import math
import random

from support.synthetic_search import probe_at, searched_trial
from support.synthetic_study import unmeasured
from tune.records.outcome import CapacityQps, Outcome
from tune.records.posterior_summary import (
    HypothesisPosterior,
    Interval,
    KindPosterior,
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
    "a_new_parameter": ((0.5, 1.0, 2.0), (1.5, 1.6, 1.9)),
}
"""Low, median and high of each factor: prior, then posterior."""


def interval(low: float, median: float, high: float) -> Interval:
    """Return an interval."""
    return Interval(low=low, median=median, high=high)


def learned_study(count: int = 16, seed: int = 3) -> tuple[list[Outcome], list[Proposal], PosteriorSummary]:
    """Return the baseline and `count` - 1 trials whose predictions sharpen.

    Some trials are stopped early; trials 4 and 11 are infeasible.
    """
    draw = random.Random(seed)
    outcomes, proposals, trials = [], [], []
    for number in range(count):
        sd = 0.02 + 0.22 / (1 + 0.5 * number)
        true_qps = 15.2 + 0.2 * number * draw.uniform(0, 1) - (number % 5 == 3) * 2.6
        median = true_qps * math.exp(draw.gauss(0, 1) * sd)
        reach = math.exp(1.645 * sd)
        predicted = None if number == 0 else interval(median / reach, median, median * reach)
        outcome = _measured(number, true_qps)
        outcomes.append(outcome)
        source = "baseline" if number == 0 else "surrogate"
        proposals.append(
            Proposal(
                number=number,
                params={},
                source=source,
                trial_id=outcome.trial_id,
                expected_capacity_qps=predicted,
            )
        )
        if outcome.status == "measured":
            standardised_residual = -2.7 if number == 5 else 2.1 if number == 9 else draw.gauss(0, 0.7)
            simulated = true_qps / (1 + 0.03 * standardised_residual)
            trials.append(
                TrialPosterior(
                    trial_id=outcome.trial_id,
                    number=number,
                    measured_qps=true_qps,
                    simulated_qps=interval(0.97 * simulated, simulated, 1.03 * simulated),
                    standardised_residual=standardised_residual,
                )
            )
    return outcomes, proposals, posterior_of(tuple(trials))


def posterior_of(
    trials: tuple[TrialPosterior, ...] = (), kinds: tuple[KindPosterior, ...] = ()
) -> PosteriorSummary:
    """Return a posterior with PARAMETERS, two hypotheses, `trials` and `kinds`."""
    return PosteriorSummary(
        schema=2,
        trials_observed=len(trials),
        parameters=tuple(
            ParameterPosterior(name=name, prior=interval(*prior), posterior=interval(*posterior))
            for name, (prior, posterior) in PARAMETERS.items()
        ),
        hypotheses=(
            HypothesisPosterior(name="last_decode_worker_scale=1.15", prior_frac=0.3, posterior_frac=0.04),
            HypothesisPosterior(name="router=random", prior_frac=0.25, posterior_frac=0.57),
        ),
        trials=trials,
        kinds=kinds,
        expected_improvement_frac=0.0123,
        calibration={"prefill_scale": 0.743},
    )


def _measured(number: int, capacity_qps: float) -> Outcome:
    """Return the outcome of a trial with this capacity."""
    prefill = 14 - number % 4
    if number in (4, 11):
        reason = "the engine ran out of memory while it captured CUDA graphs"
        return unmeasured(number, "infeasible", reason, prefill=prefill)
    low = round(0.988 * capacity_qps, 2)
    if number % 5 == 3:
        stopped_early = CapacityQps(
            low=None, high=None, stopped_early=True, estimate=capacity_qps, early_stop=15.5
        )
        probes = (probe_at(15.5, 9.0, full=False),)
        reason = f"stopped early: predicted capacity {capacity_qps:.4g} QPS, below 15.5"
        return searched_trial(
            number,
            prefill=prefill,
            probes=probes,
            capacity_qps=stopped_early,
            source="surrogate",
            feasible=False,
            reason=reason,
        )
    probes = (probe_at(low * 1.02, 5.1, full=False), probe_at(low, 4.3))
    rates = (low, None, capacity_qps)
    return searched_trial(number, prefill=prefill, probes=probes, rates=rates, source="surrogate")
