"""When a run that goes on can no longer hold its SLO. Pure."""

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


def late_requests(log: RequestLog, slo: Slo) -> tuple[NDArray[np.bool_], ...]:
    """Which requests are late, one array (n,) a limit that is not lifted. Unanswered ones are late."""
    good = answered(log)
    ttft_ns = log.first_token_ns - log.scheduled_ns
    tpot_ns = (log.done_ns - log.first_token_ns) // np.maximum(log.output_tokens - 1, 1)
    found = []
    if slo.ttft_p99_s is not None:
        found.append(~good | (ttft_ns > limit_ns(slo.ttft_p99_s)))
    if slo.tpot_p99_s is not None:
        found.append(~good | ((log.output_tokens > 1) & (tpot_ns > limit_ns(slo.tpot_p99_s))))
    return tuple(found)


def find_futility(log: RequestLog, slo: Slo, planned: int) -> Futility | None:
    """From when on a run of `planned` queries that begins as `log` cannot hold its SLO; None where it can.

    Exact: however few of the others are late, LoadGen's early stopping would not pass
    (tune/loadgen/early_stopping.py). Counted are requests whose turn has come and is over, in order of
    arrival, so that those that are quick do not count before those that are slow; as many at least as a
    verdict needs.
    """
    most = late_allowed(planned)
    if most < 0:
        return None
    ends = [int(np.argmax(np.cumsum(late) > most)) for late in late_requests(log, slo) if late.sum() > most]
    if not ends:
        return None
    queries = max(min(ends) + 1, MIN_QUERIES)
    over: IntArray = np.where(answered(log), log.done_ns, log.scheduled_ns)[:queries]
    return Futility(queries, int(over.max()))
