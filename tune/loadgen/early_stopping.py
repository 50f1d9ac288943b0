"""How many late requests a p99 verdict forgives: LoadGen's early stopping, an exact binomial test.

Source: MLPerf Inference policies, appendix "Early Stopping Criterion", and LoadGen 6.0.17
(loadgen/early_stopping.cc). With n requests of which t are late the run passes when, had each request been
late with probability 1 - percentile, t or fewer late ones were less likely than 1 - confidence.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

PERCENTILE = 0.99
"""Percentile that the limits apply to. Source: `target_latency_percentile` of the Server scenario."""

CONFIDENCE = 0.99
"""Source: loadgen/results.cc, PerformanceSummary::EarlyStopping (its tolerance is 0)."""

MIN_QUERIES = math.ceil(math.log(1 - CONFIDENCE) / math.log(PERCENTILE))
"""Fewest requests that can pass, none of them late: 459."""


def log_binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """ln P(X <= successes) for X ~ Binomial(trials, chance), 0 < chance < 1, 0 <= successes <= trials.

    Formula: the terms' ratio is (trials - k + 1)/k x chance/(1 - chance); summed relative to the largest.
    """
    k = np.arange(1, successes + 1, dtype=np.float64)
    ratios = np.log((trials - k + 1) / k) + math.log(chance / (1 - chance))
    terms = trials * math.log1p(-chance) + np.concatenate(([0.0], np.cumsum(ratios)))
    largest = float(terms.max())
    return min(0.0, largest + math.log(float(np.exp(terms - largest).sum())))


def holds(late: int, queries: int) -> bool:
    """Whether `late` of `queries` requests over a limit still show that its p99 holds."""
    return log_binomial_cdf(late, queries, 1 - PERCENTILE) < math.log(1 - CONFIDENCE)


def queries_needed(late: int) -> int:
    """Fewest requests with which `late` late ones pass; 459 for none."""
    if late < 0:
        raise ValueError(f"{late} late requests; expected 0 or more")
    # A count whose mean lies 4 standard deviations above `late` has far less than 1 % at or below it.
    bound = 100 * (late + 4 * math.isqrt(late) + 14)
    return bisect_left(range(bound), True, lo=max(MIN_QUERIES, 100 * late), key=lambda n: holds(late, n))


def late_allowed(queries: int) -> int:
    """Most late requests with which a run of `queries` passes; -1 when even none late is too few requests."""
    return bisect_left(range(queries // 100 + 1), True, key=lambda late: not holds(late, queries)) - 1
