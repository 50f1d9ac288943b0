"""Judge the limits of an SLO on the record of a run, one rule for every quantile and one for the mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.core.binomial_test import CONFIDENCE, max_late, quantile_holds
from tune.loadgen.latencies import Latencies, answered, latencies
from tune.loadgen.run_settings import limit_ns
from tune.records.outcome import Percentiles
from tune.records.requests import RequestLog
from tune.spec.load import Slo
from tune.spec.metrics import LatencyLimit

MULTIPLE = 2.0
"""Share of a limit from which on it is stated as a multiple, not in percent."""

MEAN_BATCHES = 20
"""Batches of consecutive requests whose means give the standard error of a mean.

Waiting times of neighbours are correlated, so the deviation of single requests over sqrt(n) understates the
error. Source: batch means, Law and Kelton, Simulation Modeling and Analysis, 3rd ed., 9.5.3 (20 to 30
batches).
"""


@dataclass(frozen=True, eq=False)
class MeanBound:
    """Hold the mean of a latency and its one-sided upper bound at CONFIDENCE, in ns."""

    mean_ns: float
    upper_ns: float


def mean_bound(values_ns: IntArray, unanswered: int = 0) -> MeanBound | None:
    """Return mean and upper bound of `values_ns` in order of arrival, None of fewer than 2 per batch.

    An unanswered request counts with the largest of the values: it took at least as long as was waited for
    it.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (a limit on a mean is rare)

    if len(values_ns) + unanswered < 2 * MEAN_BATCHES or not len(values_ns):
        return None
    values: FloatArray = np.append(values_ns, np.full(unanswered, values_ns.max())).astype(float)
    means = np.array([batch.mean() for batch in np.array_split(values, MEAN_BATCHES)])
    error_ns = float(means.std(ddof=1)) / MEAN_BATCHES**0.5
    mean_ns = float(values.mean())
    return MeanBound(mean_ns, mean_ns + float(stdtrit(MEAN_BATCHES - 1, CONFIDENCE)) * error_ns)


def limit_violation(
    limit: LatencyLimit, limit_s: float, times: Latencies, queries: int, unanswered: int
) -> str | None:
    """Return why one limit does not hold, None where it does.

    A quantile holds by an exact binomial test of the share of late requests; an unanswered request is
    late. A mean holds when its upper confidence bound by batch means is within the limit.

    Parameters
    ----------
    limit, limit_s
        The limit and its value in seconds.
    times
        Latencies of the answered requests, in order of arrival.
    queries, unanswered
        How many requests there are, and how many of them have no answer.
    """
    values_ns = times[limit.latency]
    share = limit.statistic.share
    if share is not None:
        late = int((values_ns > limit_ns(limit_s)).sum()) + unanswered
        if quantile_holds(late, queries, share):
            return None
        return (
            f"{late} of {queries} requests over the {limit.latency.label} limit of {limit_s:g} s; "
            f"expected at most {max(max_late(queries, share), 0)} for its {limit.statistic.name} to hold"
        )
    bound = mean_bound(values_ns, unanswered)
    if bound is None:
        return (
            f"{len(values_ns)} requests with a {limit.latency.label}; expected at least {2 * MEAN_BATCHES} "
            "for a verdict on its mean"
        )
    if bound.upper_ns <= limit_ns(limit_s):
        return None
    return (
        f"{limit.label} is {bound.mean_ns / 1e9:.4g} s and at most {bound.upper_ns / 1e9:.4g} s at "
        f"{CONFIDENCE:.0%} confidence; expected a bound of at most {limit_s:g} s"
    )


def figure_s(limit: LatencyLimit, percentiles: Percentiles | None) -> float | None:
    """Return the statistic that a limit is on, in seconds; None where it was not measured."""
    value_s: float | None = None if percentiles is None else getattr(percentiles, limit.statistic.name)
    return value_s


def used_frac(limit: LatencyLimit, limit_s: float, times: Latencies) -> float:
    """Return the share of a limit that its statistic uses.

    Parameters
    ----------
    limit, limit_s
        The limit and its value in seconds.
    times
        Latencies of the answered requests.

    Returns
    -------
    float
        The statistic over the limit, a quantile interpolated between entries; 0 without values.
    """
    values_ns = times[limit.latency]
    if not len(values_ns):
        return 0.0
    share = limit.statistic.share
    value_ns = float(values_ns.mean()) if share is None else float(np.quantile(values_ns, share))
    return value_ns / 1e9 / limit_s


def share_text(share: float) -> str:
    """Return a share to stand before a limit: "90 % of", from twice the limit on "3.6 times"."""
    if share < MULTIPLE:
        return f"{share * 100:.0f} % of"
    return f"{share:,.0f} times" if share >= 100 else f"{share:.3g} times"


def slo_holds(log: RequestLog, slo: Slo, late_frac: float = 1.0) -> bool:
    """Return whether a run holds its SLO with at most `late_frac` of the allowed late requests.

    Parameters
    ----------
    log
        The requests of a whole run.
    slo
        The limits.
    late_frac
        Share of the allowed late requests; a limit on a mean does not use it.

    Returns
    -------
    bool
        A limit on the mean of a latency that no request has, as the TPOT of one token, holds.
    """
    n = len(log)
    late = zip(quantile_limits(slo), late_requests(log, slo), strict=True)
    if any(int(each.sum()) > late_frac * max_late(n, share) for (_, _, share), each in late):
        return False
    means = mean_limits(slo)
    if not means:
        return True
    good = answered(log)
    times, unanswered = latencies(log, good), int((~good).sum())
    return all(
        limit_violation(limit, limit_s, times, n, unanswered) is None
        for limit, limit_s in means
        if len(times[limit.latency])
    )


def pooled_slo_holds(logs: Iterable[RequestLog], slo: Slo) -> bool:
    """Return whether the requests of several runs, taken together, hold their SLO without a margin.

    At most 1 - share of all requests may be late under a limit on a quantile, and the mean of all answered
    requests may not exceed a limit on a mean.
    """
    quantiles, means = quantile_limits(slo), mean_limits(slo)
    requests, late = 0, np.zeros(len(quantiles), np.int64)
    sums_ns, counts = np.zeros(len(means)), np.zeros(len(means))
    for log in logs:
        requests += len(log)
        late += np.array([int(each.sum()) for each in late_requests(log, slo)], np.int64)
        if means:
            times = latencies(log, answered(log))
            sums_ns += [float(times[limit.latency].sum()) for limit, _ in means]
            counts += [len(times[limit.latency]) for limit, _ in means]
    within = late <= np.array([(1 - share) * requests for _, _, share in quantiles])
    return bool(within.all()) and bool(
        (sums_ns <= counts * [limit_ns(limit_s) for _, limit_s in means]).all()
    )


def quantile_limits(slo: Slo) -> tuple[tuple[LatencyLimit, float, float], ...]:
    """Return every limit on a quantile that is not lifted, with its value in seconds and its share."""
    shares = ((limit, limit_s, limit.statistic.share) for limit, limit_s in slo.limits)
    return tuple((limit, limit_s, share) for limit, limit_s, share in shares if share is not None)


def mean_limits(slo: Slo) -> tuple[tuple[LatencyLimit, float], ...]:
    """Return every limit on a mean that is not lifted, with its value in seconds."""
    return tuple((limit, limit_s) for limit, limit_s in slo.limits if limit.statistic.share is None)


def late_requests(log: RequestLog, slo: Slo) -> tuple[BoolArray, ...]:
    """Return which requests are late, an array (n,) for each of `quantile_limits`; unanswered ones are."""
    good = answered(log)
    return tuple(
        ~good | (limit.latency.per_request_ns(log) > limit_ns(limit_s))
        for limit, limit_s, _ in quantile_limits(slo)
    )
