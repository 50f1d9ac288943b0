"""Decide by an exact binomial test whether a quantile holds its limit, from a count of late requests.

Of n requests t are late, that is, over a limit. The p-quantile holds when, had each request been late with
probability 1 - p, t or fewer late ones would be less likely than 1 - confidence. Source: MLPerf Inference
policies, appendix "Early Stopping Criterion"; Clopper and Pearson, Biometrika 26 (1934).
"""

from __future__ import annotations

import math
from bisect import bisect_left

CONFIDENCE = 0.99
"""Confidence of the test. Source: LoadGen 6.0.17, loadgen/results.cc, PerformanceSummary::EarlyStopping."""


def quantile_holds(late: int, queries: int, share: float) -> bool:
    """Return whether a count of late requests shows that a quantile holds its limit.

    Parameters
    ----------
    late
        Requests over the limit, 0 to `queries`.
    queries
        All requests.
    share
        The quantile, in (0, 1).

    Returns
    -------
    bool
        True where so few late requests have a probability below 1 - CONFIDENCE at a quantile on its limit.
    """
    from scipy.special import bdtr  # noqa: PLC0415  (--help needs no test, and stays quick)

    return bool(bdtr(late, queries, 1 - share) < 1 - CONFIDENCE)


def min_queries(share: float) -> int:
    """Return the fewest requests, none of them late, that show that the quantile at `share` holds."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(share))


def max_late(queries: int, share: float) -> int:
    """Return the most late requests with which `queries` still show that the quantile at `share` holds.

    The result is -1 where `queries` are too few even with none late.
    """
    last = int(queries * (1 - share)) + 1
    return bisect_left(range(last + 1), True, key=lambda late: not quantile_holds(late, queries, share)) - 1
