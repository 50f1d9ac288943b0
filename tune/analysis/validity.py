"""Decide whether a probe is valid and whether it held its SLO; each result is a reason, or None."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune.analysis.accuracy_targets import TOKENS_PER_SAMPLE_RANGE
from tune.analysis.slo import limit_violation
from tune.core.arrays import IntArray
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.loadgen.latencies import Latencies, commonest
from tune.records.requests import RequestLog
from tune.spec.load import Slo
from tune.spec.metrics import LATENCY, TPOT

MAX_UNANSWERED_FRAC = 0.01
"""Share of unanswered requests above which a p99 over all requests does not exist."""

ARRIVAL_SIGMAS = 5.0
"""Standard deviations that the sum of Poisson gaps may lie from its mean."""

_TO_FILL = "for the rack to fill"

SETTLED_LATENCIES = 2.0
"""Median latencies that arrivals must last before a run that violates no limit counts as steady."""


@dataclass(frozen=True)
class Invalidity:
    """Hold why a measurement is invalid, and whether another run of the same plan may be valid."""

    reason: str
    may_pass: bool


def slo_violation(log: RequestLog, good: NDArray[np.bool_], times: Latencies, slo: Slo) -> str | None:
    """Return why the SLO does not hold, None where it does.

    A quantile is judged by an exact binomial test of the share of late requests; an unanswered request is
    late under every limit. On p99 that test is LoadGen's early stopping: a run that LoadGen calls
    VALID and that answered every request passes it. A mean is judged by its upper confidence bound
    (tune/analysis/slo.py).

    Parameters
    ----------
    log
        The requests.
    good
        Which requests were answered, shape (n,).
    times
        Latencies of the answered requests.
    slo
        The limits.
    """
    n, unanswered = len(log), int((~good).sum())
    reasons = [limit_violation(limit, limit_s, times, n, unanswered) for limit, limit_s in slo.limits]
    return "; ".join(reason for reason in reasons if reason) or None


def invalid_reason(
    log: RequestLog, good: NDArray[np.bool_], times: Latencies, target_qps: float | None, late: bool
) -> Invalidity | None:
    """Return why a measurement is invalid, None where it is valid.

    A run too short to settle is valid when it violates a limit: the rack starts empty, so a short run can
    only look better than it is.

    Parameters
    ----------
    log
        The requests.
    good
        Which requests were answered, shape (n,).
    times
        Latencies of the answered requests.
    target_qps
        The offered rate; None in a closed loop, whose arrivals follow from its answers.
    late
        Whether the run violates a limit.
    """
    checks = (
        (_answers(log, good), True),
        (_time_order(log, good), True),
        (_enough(log), False),
        (None if target_qps is None else _arrivals(log.scheduled_ns, target_qps), True),
        (None if late else _settled(log, times), False),
    )
    return next((Invalidity(reason, may_pass) for reason, may_pass in checks if reason), None)


def accuracy_violation(log: RequestLog, good: NDArray[np.bool_]) -> str | None:
    """Return why the engine of whole passes over the benchmark's prompts cannot be accurate, or None."""
    low, high = TOKENS_PER_SAMPLE_RANGE
    mean = float(log.output_tokens[good].mean())
    if low <= mean <= high:
        return None
    return (
        f"answers have {mean:.1f} tokens on average; expected {low:.2f} to {high:.2f} of an engine that is "
        "accurate"
    )


def _answers(log: RequestLog, good: NDArray[np.bool_]) -> str | None:
    """Return the fault of the answers (none, too few, or none with two tokens), or None."""
    n, failed = len(log), int((log.error != "").sum())
    missing = int((~good).sum())
    if missing == n:
        return f"none of {n} requests was answered{_example(log)}; expected output tokens"
    if missing > MAX_UNANSWERED_FRAC * n:
        return (
            f"{missing} of {n} requests unanswered ({failed} failed, {missing - failed} unfinished or empty)"
            f"{_example(log)}; expected at most {MAX_UNANSWERED_FRAC:.0%}"
        )
    if not bool((log.output_tokens[good] > 1).any()):
        return f"no answer of {n - missing} has two tokens; expected some, {TPOT.label} needs them"
    return None


def _example(log: RequestLog) -> str:
    """Return the most frequent error as a part of a message, "" without errors."""
    text = commonest(log.error)
    return f", most often: {text}" if text else ""


def _time_order(log: RequestLog, good: NDArray[np.bool_]) -> str | None:
    """Return the fault in the order of times, or None."""
    unordered = bool((np.diff(log.scheduled_ns) < 0).any()) or int(log.scheduled_ns[0]) < 0
    early = int((good & ((log.first_token_ns < log.scheduled_ns) | (log.done_ns < log.first_token_ns))).sum())
    if unordered:
        return "arrivals are not in order of time; expected each at or after the one before, from 0 on"
    if early:
        return (
            f"{early} requests have a token before their arrival or an end before it; expected times in order"
        )
    return None


def _enough(log: RequestLog) -> str | None:
    """Return that there are too few requests for a verdict."""
    if len(log) < MIN_QUERIES:
        return f"{len(log)} requests; expected at least {MIN_QUERIES} for a verdict on a p99"
    return None


def _arrivals(scheduled_ns: IntArray, target_qps: float) -> str | None:
    """Return that requests did not arrive at `target_qps`.

    n - 1 exponential gaps of mean 1/qps sum to (n - 1)/qps with standard deviation sqrt(n - 1)/qps.
    """
    gaps, lasts_s = len(scheduled_ns) - 1, int(scheduled_ns[-1]) / 1e9
    if abs(lasts_s * target_qps - gaps) > ARRIVAL_SIGMAS * math.sqrt(gaps):
        rate = f"{gaps / lasts_s:.4g} a second" if lasts_s > 0 else "all at once"
        return f"{gaps + 1} requests arrived at {rate}; expected {target_qps:g} a second"
    return None


def _settled(log: RequestLog, times: Latencies) -> str | None:
    """Return that arrivals ended before the rack could fill."""
    lasts_s = int(log.scheduled_ns[-1]) / 1e9
    median_s = float(np.median(times[LATENCY])) / 1e9
    if lasts_s < SETTLED_LATENCIES * median_s:
        return (
            f"arrivals lasted {lasts_s:.3g} s at a median latency of {median_s:.3g} s; expected at least "
            f"{SETTLED_LATENCIES * median_s:.3g} s {_TO_FILL}"
        )
    return None


def is_too_short(reason: str | None) -> bool:
    """Return whether a measurement is invalid because its arrivals ended before the rack could fill."""
    return reason is not None and reason.endswith(_TO_FILL)
