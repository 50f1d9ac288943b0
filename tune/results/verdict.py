"""LoadGen's verdict on a Server run with token latencies, from the per-request record.

Source of every rule: LoadGen 6.0.17, loadgen/results.cc (EarlyStopping, MinDurationMet, MinQueriesMet,
PerfConstraintsMet, LogDetail) and loadgen/logging.cc (RecordSampleCompletion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.results.early_stopping import PERCENTILE, holds, queries_needed
from tune.results.latencies import answered, percentile
from tune.results.requests import IntArray, RequestLog
from tune.spec.load import Load, Slo

LIFTED_LIMIT_NS = 10**18
"""What stands in LoadGen's settings where a limit is lifted: 31 years."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What LoadGen recorded: int64 arrays of shape (n,), times in ns; `errors` counts its error messages.

    A request without an answer is one that the client reports complete with no tokens: when it failed, or
    when `response_timeout_s` ended the wait. LoadGen books answers of one token as errors without tokens too,
    and gives both a time per token of (latency - TTFT) / (0 - 1).
    """

    latency_ns: IntArray
    ttft_ns: IntArray
    tpot_ns: IntArray
    tokens: IntArray
    errors: int


@dataclass(frozen=True)
class Verdict:
    """The four conditions of a VALID run and LoadGen's own notes on them.

    LoadGen looks at TTFT only when TPOT passed its early stopping: else `ttft_note` is empty.
    """

    perf_constraints_met: bool
    min_duration_met: bool
    min_queries_met: bool
    early_stopping_met: bool
    advice: tuple[str, ...]
    ttft_note: str
    tpot_note: str

    @property
    def result(self) -> str:
        met = (
            self.perf_constraints_met
            and self.min_duration_met
            and self.min_queries_met
            and self.early_stopping_met
        )
        return "VALID" if met else "INVALID"


def limit_ns(limit_s: float | None) -> int:
    """A limit as LoadGen's settings hold it."""
    return LIFTED_LIMIT_NS if limit_s is None else round(limit_s * 1e9)


def loadgen_samples(log: RequestLog, load: Load) -> Samples:
    """The record as LoadGen would have kept it. `log` has at least one request."""
    timeout_ns = log.scheduled_ns + round(load.response_timeout_s * 1e9)
    done = np.where(log.done_ns >= 0, log.done_ns, timeout_ns)
    first = np.where(log.first_token_ns >= 0, log.first_token_ns, done)
    counted = answered(log) & (log.output_tokens > 1)
    tokens = np.where(counted, log.output_tokens, 0)
    latency, ttft = done - log.scheduled_ns, first - log.scheduled_ns
    tpot = np.where(counted, (latency - ttft) // np.where(counted, tokens - 1, 1), ttft - latency)
    return Samples(latency, ttft, tpot, tokens, int((~counted).sum()))


def loadgen_verdict(log: RequestLog, samples: Samples, load: Load, slo: Slo) -> Verdict:
    """LoadGen's judgement of `samples`."""
    n = len(log)
    ttft_limit, tpot_limit = limit_ns(slo.ttft_p99_s), limit_ns(slo.tpot_p99_s)
    advice = [
        f"{name} constrain not met: Reduce target QPS to improve latency."
        for name, values, limit in (
            ("TTFT", samples.ttft_ns, ttft_limit),
            ("TPOT", samples.tpot_ns, tpot_limit),
        )
        if percentile(np.sort(values), PERCENTILE) > limit
    ]
    perf_met = not advice
    duration_met = int(log.scheduled_ns[-1]) >= round(load.min_duration_s * 1e9)
    if not duration_met:
        advice.append("Increase the target QPS so the loadgen pre-generates more queries.")
    queries_met = n >= load.min_queries
    if not queries_met:
        advice.append("The test exited early, before enough queries were issued.")
    tpot_stops, tpot_note = _early_stopping(samples.tpot_ns, tpot_limit)
    ttft_stops, ttft_note = _early_stopping(samples.ttft_ns, ttft_limit) if tpot_stops else (False, "")
    return Verdict(
        perf_met, duration_met, queries_met, tpot_stops and ttft_stops, tuple(advice), ttft_note, tpot_note
    )


def _early_stopping(values_ns: IntArray, limit: int) -> tuple[bool, str]:
    late, n = int((values_ns > limit).sum()), len(values_ns)
    if holds(late, n):
        return True, " * Run successful."
    return False, (
        f" * Run unsuccessful.\n * Processed {n} queries.\n * Would need to run at least "
        f"{queries_needed(late) - n} more queries,\n with the run being successful if every additional\n "
        "query were under latency."
    )
