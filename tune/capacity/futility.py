"""Decide when a run in progress can no longer hold its SLO (stopping for futility). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tune.analysis.slo import late_requests, mean_limits, quantile_limits
from tune.core.arrays import IntArray
from tune.core.binomial_test import max_late
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.loadgen.latencies import answered
from tune.loadgen.run_settings import limit_ns
from tune.records.requests import RequestLog
from tune.spec.load import Slo


def more_than_half(verdicts: Iterable[bool], count: int) -> bool:
    """Return whether more than half of `count` verdicts are True; consume only as many as decide it."""
    counts = [0, 0]
    for verdict in verdicts:
        counts[verdict] += 1
        if 2 * counts[True] > count or 2 * counts[False] >= count:
            break
    return 2 * counts[True] > count


class Futility(NamedTuple):
    """Hold the point at which a run became futile.

    Among its first `queries` requests more are late than the whole run allows. That is known `after_ns`
    nanoseconds from its start.
    """

    queries: int
    after_ns: int


def find_futility(log: RequestLog, slo: Slo, planned: int) -> Futility | None:
    """Find the earliest point at which a run cannot hold its SLO any more.

    Parameters
    ----------
    log
        Requests of the run so far, in order of arrival.
    slo
        Limits that the run must hold.
    planned
        Number of requests that the whole run will have.

    Returns
    -------
    Futility | None
        None while the run can still hold its SLO.

    Notes
    -----
    The test is exact: however few of the other requests are late, and however quick they are, the limit would
    not hold (tune/analysis/slo.py). Requests are counted in order of arrival once all before them are over,
    so that fast ones do not count before slow ones, and at least as many as a verdict needs.
    """
    if planned < MIN_QUERIES:
        return None
    ends = []
    for spent, budget in _spent_budgets(log, slo, planned):
        if spent.sum() > budget:
            ends.append(int(np.argmax(np.cumsum(spent) > budget)))
    if not ends:
        return None
    queries = max(min(ends) + 1, MIN_QUERIES)
    over: IntArray = np.where(answered(log), log.done_ns, log.scheduled_ns)[:queries]
    return Futility(queries, int(over.max()))


def _spent_budgets(log: RequestLog, slo: Slo, planned: int) -> Iterator[tuple[IntArray, int]]:
    """Yield for each limit the part (n,) of a budget that every request spends, and the run's budget.

    For a quantile the budget is the allowed number of late requests; each late request spends 1. For a mean
    it is limit x requests in ns; each request spends its latency, an unanswered one 0, because its latency is
    not known. A mean whose budget is spent is above its limit, however quick the other requests are.
    """
    late = late_requests(log, slo)
    yield from (
        (each.astype(np.int64), max_late(planned, share))
        for each, (_, _, share) in zip(late, quantile_limits(slo), strict=True)
    )
    means = mean_limits(slo)
    if means:
        good = answered(log)
        yield from (
            (np.where(good, limit.latency.per_request_ns(log), 0), limit_ns(limit_s) * planned)
            for limit, limit_s in means
        )
