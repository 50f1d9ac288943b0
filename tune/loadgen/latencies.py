"""Compute latencies of a request record, and percentiles as LoadGen takes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.records.outcome import Percentiles
from tune.records.requests import RequestLog
from tune.spec.metrics import LATENCY, TPOT, TTFT, LatencyMetric


@dataclass(frozen=True, eq=False)
class Latencies:
    """Hold the latencies of the answered requests, int64 nanoseconds from the scheduled arrival.

    `ttft_ns` and `latency_ns` have one entry per answered request. `tpot_ns` has one per answer of two or
    more tokens: (latency - TTFT) / (tokens - 1), in whole nanoseconds. Source: LoadGen, loadgen/logging.cc.
    """

    ttft_ns: IntArray
    tpot_ns: IntArray
    latency_ns: IntArray


def answered(log: RequestLog) -> NDArray[np.bool_]:
    """Return which requests got a whole answer: no error, both times, at least one token; shape (n,)."""
    is_answered: NDArray[np.bool_] = (
        (log.error == "") & (log.first_token_ns >= 0) & (log.done_ns >= 0) & (log.output_tokens > 0)
    )
    return is_answered


def latencies(log: RequestLog, selected: NDArray[np.bool_]) -> Latencies:
    """Return the latencies of the requests that `selected`, shape (n,), selects."""

    def values_ns(metric: LatencyMetric) -> IntArray:
        """Return the values of the selected requests that have this latency."""
        return metric.per_request_ns(log)[selected & (log.output_tokens >= metric.min_tokens)]

    return Latencies(values_ns(TTFT), values_ns(TPOT), values_ns(LATENCY))


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
    shares = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99_9": 0.999}
    figures = {name: percentile(ordered, share) / 1e9 for name, share in shares.items()}
    return Percentiles(mean=float(ordered.mean()) / 1e9, max=int(ordered[-1]) / 1e9, **figures)


def commonest(error: NDArray[np.str_]) -> str:
    """Return the most frequent error message, first by alphabet among ties, "" where there is none."""
    counts = Counter(str(text) for text in error[error != ""])
    return min(counts, key=lambda text: (-counts[text], text), default="")
