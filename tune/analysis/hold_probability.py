"""Estimate the probability that a trial holds its SLO in a shuffle that nobody ran."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tune.analysis.slo import figure_s
from tune.records.outcome import LoadGenSpread, Outcome
from tune.spec.metrics import LIMITS, LatencyLimit

COVERAGE = 0.9
"""Probability that the interval holds the true one."""

PRIOR_COUNT = 0.5
"""What both verdicts are counted as before any shuffle is known. Source: Jeffreys' prior for a proportion."""


@dataclass(frozen=True)
class HoldProbability:
    """Hold the probability that the SLO holds in a further shuffle, with its interval at COVERAGE."""

    estimate: float
    low: float
    high: float


def hold_probability(spread: LoadGenSpread) -> HoldProbability:
    """Return the probability after the verdicts of `spread`.

    Mean and quantiles of the beta distribution that Jeffreys' prior gives. Source: Brown, Cai and DasGupta,
    Interval estimation for a binomial proportion, Statistical Science 16 (2001).
    """
    from scipy.special import betaincinv  # noqa: PLC0415  (only trials near a limit need it)

    held, missed = spread.slo_met + PRIOR_COUNT, spread.shuffles - spread.slo_met + PRIOR_COUNT
    tail = (1 - COVERAGE) / 2
    return HoldProbability(
        held / (held + missed),
        low=0.0 if spread.slo_met == 0 else float(betaincinv(held, missed, tail)),
        high=1.0 if spread.slo_met == spread.shuffles else float(betaincinv(held, missed, 1 - tail)),
    )


def judged_constraint(outcome: Outcome, among: Collection[LatencyLimit] = LIMITS) -> float | None:
    """Return ln(figure / limit) of the worst limit `among` some, as the verdict judges it.

    For a trial that violates its SLO, the worst known shuffle counts. The result is None where none of the
    limits was measured.
    """
    shuffles = None if outcome.feasible else outcome.spread
    logs = []
    for limit, share in outcome.constraints.used.items():
        if limit not in among:
            continue
        spread = shuffles.of(limit) if shuffles else None
        own_s = figure_s(limit, outcome.statistics_of(limit.latency))
        worse = spread.max / own_s if spread and own_s else 1.0
        logs.append(math.log(share * max(worse, 1.0)))
    return max(logs, default=None)
