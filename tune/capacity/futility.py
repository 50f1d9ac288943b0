"""Decide when a run in progress can no longer hold its SLO (stopping for futility). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.loadgen.early_stopping import MIN_QUERIES, late_allowed
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


def late_requests(log: RequestLog, slo: Slo) -> tuple[NDArray[np.bool_], ...]:
    """Return which requests are late, one array (n,) for each limit that applies.

    A request without an answer is late.
    """
    good = answered(log)
    ttft_ns = log.first_token_ns - log.scheduled_ns
    tpot_ns = (log.done_ns - log.first_token_ns) // np.maximum(log.output_tokens - 1, 1)
    late = []
    if slo.ttft_p99_s is not None:
        late.append(~good | (ttft_ns > limit_ns(slo.ttft_p99_s)))
    if slo.tpot_p99_s is not None:
        late.append(~good | ((log.output_tokens > 1) & (tpot_ns > limit_ns(slo.tpot_p99_s))))
    return tuple(late)


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
    The test is exact: even if no other request were late, LoadGen's early stopping would not pass
    (tune/loadgen/early_stopping.py). Requests are counted in order of arrival once all before them are over,
    so that fast ones do not count before slow ones, and at least as many as a verdict needs.
    """
    allowed = late_allowed(planned)
    if allowed < 0:
        return None
    ends = [
        int(np.argmax(np.cumsum(late) > allowed)) for late in late_requests(log, slo) if late.sum() > allowed
    ]
    if not ends:
        return None
    queries = max(min(ends) + 1, MIN_QUERIES)
    over_ns: IntArray = np.where(answered(log), log.done_ns, log.scheduled_ns)[:queries]
    return Futility(queries, int(over_ns.max()))
