"""When a run that goes on can no longer hold its SLO. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tune.analysis.slo import late_requests, mean_limits, quantile_limits, request_latencies_ns
from tune.core.arrays import IntArray
from tune.core.binomial_test import max_late
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.loadgen.latencies import answered
from tune.loadgen.run_settings import limit_ns
from tune.records.requests import RequestLog
from tune.spec.load import Slo


def more_than_half(held: Iterable[bool], of: int) -> bool:
    """Whether more than half of `of` verdicts are True; takes no more of them than decide it."""
    counts = [0, 0]
    for one in held:
        counts[one] += 1
        if 2 * counts[True] > of or 2 * counts[False] >= of:
            break
    return 2 * counts[True] > of


class Futility(NamedTuple):
    """Of the first `queries` requests more are late than the whole run forgives; known `after_ns`."""

    queries: int
    after_ns: int


def find_futility(log: RequestLog, slo: Slo, planned: int) -> Futility | None:
    """From when on a run of `planned` queries that begins as `log` cannot hold its SLO; None where it can.

    Exact: however few of the others are late, and however quick they are, the limit would not hold
    (tune/analysis/slo.py). Counted are requests whose turn has come and is over, in order of
    arrival, so that those that are quick do not count before those that are slow; as many at least as a
    verdict needs.
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
    """Yield for each limit what every request spends (n,) of the budget of a run of `planned` requests.

    Of a quantile's budget, the late requests that it allows, a late request spends one. Of a mean's budget,
    the limit times the requests, a request spends its latency in ns, an unanswered one none: what it takes
    is not known. A mean whose budget is spent lies above its limit, however quick the other requests are.
    """
    late = late_requests(log, slo)
    yield from (
        (each.astype(np.int64), max_late(planned, share))
        for each, (_, _, share) in zip(late, quantile_limits(slo), strict=True)
    )
    means = mean_limits(slo)
    if means:
        times_ns, good = request_latencies_ns(log), answered(log)
        yield from (
            (np.where(good, times_ns[limit.latency.name], 0), limit_ns(limit_s) * planned)
            for limit, limit_s in means
        )
