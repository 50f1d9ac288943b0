"""Compute latencies of a request record, and percentiles as LoadGen takes them."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.records.outcome import Percentiles
from tune.records.requests import RequestLog
from tune.spec.metrics import LATENCIES, STATISTICS, LatencyMetric

Latencies: TypeAlias = dict[LatencyMetric, IntArray]
"""Values of each latency in int64 nanoseconds, one for every request that has it, in order of arrival."""

_SHARES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99_9": 0.999} | {
    statistic.name: statistic.share for statistic in STATISTICS if statistic.share is not None
}
"""The quantile of each percentile on record: those that LoadGen states, and those on which a limit may be."""


def answered(log: RequestLog) -> NDArray[np.bool_]:
    """Return which requests got a whole answer: no error, both times, at least one token; shape (n,)."""
    is_answered: NDArray[np.bool_] = (
        (log.error == "") & (log.first_token_ns >= 0) & (log.done_ns >= 0) & (log.output_tokens > 0)
    )
    return is_answered


def latencies(log: RequestLog, selected: NDArray[np.bool_]) -> Latencies:
    """Return the latencies of the requests that `selected`, shape (n,), selects."""
    return {
        metric: metric.per_request_ns(log)[selected & (log.output_tokens >= metric.min_tokens)]
        for metric in LATENCIES
    }


def percentile(ordered: IntArray, share: float) -> int:
    """Return the entry at floor(n x share) of n > 0 ascending values, 0 <= share < 1.

    Source: LoadGen, loadgen/results.cc. Where n x share is whole, it is one entry later than the inverse of
    the empirical distribution.
    """
    return int(ordered[int(len(ordered) * share)])


def percentiles_s(values_ns: IntArray) -> Percentiles | None:
    """Return mean, percentiles and maximum in seconds, None without values."""
    if not len(values_ns):
        return None
    ordered = np.sort(values_ns)
    figures = {name: percentile(ordered, share) / 1e9 for name, share in _SHARES.items()}
    return Percentiles(mean=float(ordered.mean()) / 1e9, max=int(ordered[-1]) / 1e9, **figures)


def commonest(error: NDArray[np.str_]) -> str:
    """Return the most frequent error message, first by alphabet among ties, "" where there is none."""
    counts = Counter(str(text) for text in error[error != ""])
    return min(counts, key=lambda text: (-counts[text], text), default="")
