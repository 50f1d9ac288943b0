"""Compute LoadGen's verdict on a Server run with token latencies from the per-request record.

Source of every rule: LoadGen 6.0.17, loadgen/results.cc (EarlyStopping, MinDurationMet, MinQueriesMet,
PerfConstraintsMet, LogDetail) and loadgen/logging.cc (RecordSampleCompletion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.core.arrays import IntArray
from tune.loadgen.early_stopping import PERCENTILE, holds, queries_needed
from tune.loadgen.latencies import answered, percentile
from tune.loadgen.run_settings import LIFTED_LIMIT_NS, LoadGenSettings
from tune.records.requests import RequestLog

MIN_TOKENS = 2
"""Fewest tokens of an answer that LoadGen counts; fewer are an error. Source: RecordSampleCompletion."""

_PAST_LIMIT_NS = 1_000_000
"""Time past a limit at which a failed request is reported, so that LoadGen counts it as late."""


@dataclass(frozen=True, eq=False)
class LoadGenSamples:
    """Hold LoadGen's record of the requests: int64 arrays of shape (n,), times in ns; `errors` counts errors.

    LoadGen books an answer of one token or of none as an error without tokens, and gives both a time per
    token of (latency - TTFT) / (0 - 1).
    """

    latency_ns: IntArray
    ttft_ns: IntArray
    tpot_ns: IntArray
    tokens: IntArray
    errors: int


@dataclass(frozen=True)
class LoadGenVerdict:
    """Hold the four conditions of a VALID run and LoadGen's own notes on them.

    LoadGen examines TTFT only when TPOT passed its early stopping; else `ttft_note` is empty.
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
        """Return "VALID" where all four conditions are met, else "INVALID"."""
        met = (
            self.perf_constraints_met
            and self.min_duration_met
            and self.min_queries_met
            and self.early_stopping_met
        )
        return "VALID" if met else "INVALID"


def min_report_delay_ns(limit_ns: int) -> int:
    """Return the earliest time after its start, in ns, at which a failed request is reported to LoadGen.

    LoadGen cannot represent a failed request. A request without a first token is reported once its TTFT
    limit has passed, as an answer without tokens, which is an error. A request that broke off after its
    first token is reported once the limit of a second token has passed, as an answer of FEWEST_TOKENS tokens.
    Each is therefore late under the limit that it missed, and never a fast success. Where that limit is
    lifted, the delay is 0 and only requests.npz shows the failure.
    """
    return 0 if limit_ns >= LIFTED_LIMIT_NS else limit_ns + _PAST_LIMIT_NS


def loadgen_samples(log: RequestLog, settings: LoadGenSettings) -> LoadGenSamples:
    """Return the record as LoadGen would have kept it; `log` has at least one request.

    The record does not say when a request failed. The failure is assumed to reach LoadGen at the earliest
    time that `min_report_delay_ns` allows.
    """
    whole, began = answered(log), log.first_token_ns >= 0
    ttft = np.where(began, log.first_token_ns - log.scheduled_ns, min_report_delay_ns(settings.ttft_limit_ns))
    broke_off_ns = np.where(began, min_report_delay_ns(settings.tpot_limit_ns), 0)
    rest = np.where(whole, log.done_ns - log.first_token_ns, broke_off_ns)
    reported = np.where(whole, log.output_tokens, np.where(began, MIN_TOKENS, 0))
    counted = reported >= MIN_TOKENS
    tokens = np.where(counted, reported, 0)
    return LoadGenSamples(ttft + rest, ttft, rest // (tokens - 1), tokens, int((~counted).sum()))


def loadgen_verdict(log: RequestLog, samples: LoadGenSamples, settings: LoadGenSettings) -> LoadGenVerdict:
    """Return LoadGen's verdict on a run.

    Parameters
    ----------
    log
        The requests; at least one.
    samples
        What LoadGen recorded of them (`loadgen_samples`).
    settings
        The settings of the run.
    """
    n = len(log)
    ttft_limit, tpot_limit = settings.ttft_limit_ns, settings.tpot_limit_ns
    advice = [
        f"{name} constrain not met: Reduce target QPS to improve latency."
        for name, values, limit in (
            ("TTFT", samples.ttft_ns, ttft_limit),
            ("TPOT", samples.tpot_ns, tpot_limit),
        )
        if percentile(np.sort(values), PERCENTILE) > limit
    ]
    perf_met = not advice
    duration_met = int(log.scheduled_ns[-1]) >= settings.min_duration_ms * 10**6
    if not duration_met:
        advice.append("Increase the target QPS so the loadgen pre-generates more queries.")
    queries_met = n >= settings.min_queries
    if not queries_met:
        advice.append("The test exited early, before enough queries were issued.")
    tpot_stops, tpot_note = _early_stopping(samples.tpot_ns, tpot_limit)
    ttft_stops, ttft_note = _early_stopping(samples.ttft_ns, ttft_limit) if tpot_stops else (False, "")
    return LoadGenVerdict(
        perf_met, duration_met, queries_met, tpot_stops and ttft_stops, tuple(advice), ttft_note, tpot_note
    )


def _early_stopping(values_ns: IntArray, limit: int) -> tuple[bool, str]:
    """Return whether `values_ns` pass LoadGen's early stopping at `limit`, and LoadGen's note."""
    late, n = int((values_ns > limit).sum()), len(values_ns)
    if holds(late, n):
        return True, " * Run successful."
    return False, (
        f" * Run unsuccessful.\n * Processed {n} queries.\n * Would need to run at least "
        f"{queries_needed(late) - n} more queries,\n with the run being successful if every additional\n "
        "query were under latency."
    )
