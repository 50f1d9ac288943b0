"""Reduce the requests of a probe to the statistics that the forecast is fitted to."""

from __future__ import annotations

import numpy as np

from tune.analysis.slo import used_frac
from tune.core.arrays import FloatArray
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import RequestLog
from tune.spec.load import Slo
from tune.spec.metrics import TPOT, TTFT

STATISTIC_LOG_SD = np.array([0.04, 0.03, 0.03, 0.05, 0.10, 0.02, 0.02])
"""Standard deviation of the log difference between each measured and simulated statistic of 1,000 requests,
in the order of `log_statistics`. Chosen here."""


def log_statistics(log: RequestLog) -> FloatArray:
    """Return the logs, in ns, of mean, p10, p50, p90 and p98 of TTFT, and of mean and p90 of TPOT."""
    times = latencies(log, answered(log))
    ttft, tpot = times[TTFT], times[TPOT]
    values = [ttft.mean(), *np.quantile(ttft, [0.1, 0.5, 0.9, 0.98]), tpot.mean(), np.quantile(tpot, 0.9)]
    return np.log(np.maximum(values, 1.0))


def used_limit_shares(log: RequestLog, slo: Slo) -> tuple[float, ...]:
    """Return the statistic of each limit as a share of the limit; a single 0 where all are lifted."""
    times = latencies(log, answered(log))
    return tuple(used_frac(limit, limit_s, times) for limit, limit_s in slo.limits) or (0.0,)
