"""Apply LoadGen's early stopping: how many late requests the verdict on a p99 allows.

Source: MLPerf Inference policies, appendix "Early Stopping Criterion", and LoadGen 6.0.17
(loadgen/early_stopping.cc; its tolerance is 0). The test is the exact binomial one of
tune/core/binomial_test.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from tune.core import binomial_test

PERCENTILE = 0.99
"""Percentile that LoadGen's limits apply to. Source: `target_latency_percentile` of the Server scenario."""

MIN_QUERIES = binomial_test.min_queries(PERCENTILE)
"""Fewest requests that can pass, none of them late: 459."""


def holds(late: int, queries: int) -> bool:
    """Return whether `late` of `queries` requests over a limit still show that its p99 holds."""
    return binomial_test.quantile_holds(late, queries, PERCENTILE)


def queries_needed(late: int) -> int:
    """Return the fewest requests with which `late` late ones pass; 459 for none.

    Raises ValueError for a negative count.
    """
    if late < 0:
        raise ValueError(f"{late} late requests; expected 0 or more")
    # A count whose mean lies 4 standard deviations above `late` has far less than 1 % at or below it.
    bound = 100 * (late + 4 * math.isqrt(late) + 14)
    return bisect_left(range(bound), True, lo=max(MIN_QUERIES, 100 * late), key=lambda n: holds(late, n))


def late_allowed(queries: int) -> int:
    """Return the most late requests with which a run of `queries` passes; -1 where none late are too few."""
    return binomial_test.max_late(queries, PERCENTILE)
