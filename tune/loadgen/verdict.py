"""LoadGen's verdict on a Server run with token latencies, from the per-request record.

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

FEWEST_TOKENS = 2
"""Fewer are an error and make a negative time per token. Source: RecordSampleCompletion."""

_PAST_LIMIT_NS = 1_000_000


@dataclass(frozen=True, eq=False)
class LoadGenSamples:
    """What LoadGen recorded: int64 arrays of shape (n,), times in ns; `errors` counts its error messages.

    LoadGen books an answer of one token as an error without tokens, as one of none, and gives both a time per
    token of (latency - TTFT) / (0 - 1).
    """

    latency_ns: IntArray
    ttft_ns: IntArray
    tpot_ns: IntArray
    tokens: IntArray
    errors: int


@dataclass(frozen=True)
class LoadGenVerdict:
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


def min_report_delay_ns(limit_ns: int) -> int:
    """How long after its begin LoadGen hears of a failure, at the earliest: just late, at once if lifted.

    LoadGen has no word for a failed request. One without a first token is told, once the TTFT limit passed,
    as an answer without tokens: an error. One that broke off after its first token is told, once the limit of
    a second token passed, as an answer of two tokens, the fewest that LoadGen takes. So each is late under
    the limit that it missed, and never a fast success; with that limit lifted, requests.npz alone tells.
    """
    return 0 if limit_ns >= LIFTED_LIMIT_NS else limit_ns + _PAST_LIMIT_NS


def loadgen_samples(log: RequestLog, settings: LoadGenSettings) -> LoadGenSamples:
    """The record as LoadGen would have kept it. `log` has at least one request.

    The record does not say when a request failed: LoadGen is taken to hear of it as soon as it may.
    """
    whole, began = answered(log), log.first_token_ns >= 0
    ttft = np.where(began, log.first_token_ns - log.scheduled_ns, min_report_delay_ns(settings.ttft_limit_ns))
    broke_off_ns = np.where(began, min_report_delay_ns(settings.tpot_limit_ns), 0)
    rest = np.where(whole, log.done_ns - log.first_token_ns, broke_off_ns)
    told = np.where(whole, log.output_tokens, np.where(began, FEWEST_TOKENS, 0))
    counted = told >= FEWEST_TOKENS
    tokens = np.where(counted, told, 0)
    return LoadGenSamples(ttft + rest, ttft, rest // (tokens - 1), tokens, int((~counted).sum()))


def loadgen_verdict(log: RequestLog, samples: LoadGenSamples, settings: LoadGenSettings) -> LoadGenVerdict:
    """LoadGen's judgement of `samples`."""
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
    late, n = int((values_ns > limit).sum()), len(values_ns)
    if holds(late, n):
        return True, " * Run successful."
    return False, (
        f" * Run unsuccessful.\n * Processed {n} queries.\n * Would need to run at least "
        f"{queries_needed(late) - n} more queries,\n with the run being successful if every additional\n "
        "query were under latency."
    )
