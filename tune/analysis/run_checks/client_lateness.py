"""Check that the load client was not the bottleneck."""

from __future__ import annotations

import numpy as np

from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, not_counted
from tune.loadgen.latencies import answered, latencies
from tune.spec.metrics import TTFT

MAX_LATENESS_FRAC = 0.02
"""Share of the p99 of TTFT that the client's own lateness may be: it is a part of each TTFT. Chosen here."""

MIN_LATENESS_S = 0.01
"""Lateness that always may be, in seconds: what a scheduler of the kernel takes now and then. Chosen here."""

MAX_BUSY_FRAC = 0.8
"""Share of the time in which the client's thread may compute. At 80 % an event waits four times as long as it
takes, in a queue with one server (M/M/1: rho / (1 - rho))."""


def examine_client(run: RunEvidence) -> Examined:
    """Return how late the client sent its requests, and how busy it was."""
    log, path = run.log, run.file("requests.npz")
    sent = np.zeros(0) if log.sent_ns is None else (log.sent_ns - log.scheduled_ns)[log.sent_ns >= 0]
    if not len(sent) or log.client_busy_frac is None:
        return not_counted("the client did not record when it sent requests and how busy it was")
    ttft_ns = latencies(log, answered(log))[TTFT]
    slack_s = MAX_LATENESS_FRAC * float(np.quantile(ttft_ns, 0.99)) * 1e-9 if len(ttft_ns) else 0.0
    allowed_s, late_s = max(MIN_LATENESS_S, slack_s), float(np.quantile(sent, 0.99)) * 1e-9
    found = (
        f"99 % of the requests were sent within {late_s * 1e3:.3g} ms of their time, {allowed_s * 1e3:.3g} "
        f"may be; its thread computed {log.client_busy_frac * 100:.0f} % of the time"
    )
    off = late_s > allowed_s or log.client_busy_frac > MAX_BUSY_FRAC
    return Examined("off" if off else "as_meant", found, (path,))
