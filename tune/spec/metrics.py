"""Declare every metric once: name, unit, direction, formula, source and how it is shown.

Settings, verdicts, capacity search, ranking, report, exports and docs/reference/metrics.md derive their
fields, columns, labels, units and scales from the tables below.

Another latency is one more row in LATENCIES with its formula per request, another statistic one more row in
STATISTICS, another figure of throughput one more row in RATES with its formula per run; none touches another
file. Records made before have no value of it.
LoadGen's names and texts in its logs, and sentences, name metrics themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from tune.core.arrays import IntArray


class RequestTimes(Protocol):
    """Describe what latencies are computed from: arrays (n,), times in int64 nanoseconds."""

    @property
    def scheduled_ns(self) -> IntArray:
        """Return the scheduled arrival of each request."""

    @property
    def first_token_ns(self) -> IntArray:
        """Return the time of the first token of each request."""

    @property
    def done_ns(self) -> IntArray:
        """Return the time of the last token of each request."""

    @property
    def output_tokens(self) -> IntArray:
        """Return the output tokens of each request."""


def ttft_ns(log: RequestTimes) -> IntArray:
    """Return the time to first token of every request, (n,)."""
    return log.first_token_ns - log.scheduled_ns


def tpot_ns(log: RequestTimes) -> IntArray:
    """Return the time per output token of every request in whole nanoseconds, (n,); 0 below two tokens."""
    values_ns = (log.done_ns - log.first_token_ns) // np.maximum(log.output_tokens - 1, 1)
    return np.where(log.output_tokens > 1, values_ns, 0)


def latency_ns(log: RequestTimes) -> IntArray:
    """Return the end-to-end latency of every request, (n,)."""
    return log.done_ns - log.scheduled_ns


@dataclass(frozen=True)
class LatencyMetric:
    """Describe one latency of a request.

    `name` is the stem of its field in outcome.json, `<name>_s`. `shown_unit` is the unit in which people read
    it, `shown_scale` the factor from seconds to that unit. `per_request_ns` computes `formula`; an answer of
    fewer than `min_tokens` tokens has no such latency. `spent_in` says which pool's work takes the time, by
    which the bottleneck of a limit is found. `title_suffix` follows `title` where settings are explained.
    """

    name: str
    label: str
    title: str
    shown_unit: Literal["s", "ms"]
    formula: str
    source: str
    per_request_ns: Callable[[RequestTimes], IntArray]
    spent_in: Literal["prefill", "decode", "both"]
    min_tokens: int = 0
    title_suffix: str = ""
    unit: Literal["s"] = "s"
    direction: Literal["lower"] = "lower"

    @property
    def field(self) -> str:
        """Return its field in outcome.json, such as "ttft_s"."""
        return f"{self.name}_{self.unit}"

    @property
    def shown_scale(self) -> float:
        """Return the factor from seconds to the shown unit."""
        return {"s": 1.0, "ms": 1e3}[self.shown_unit]

    def show(self, seconds: float) -> str:
        """Return a limit or figure as people read it, such as "4.5 s" or "80 ms"."""
        return f"{seconds * self.shown_scale:g} {self.shown_unit}"


@dataclass(frozen=True, kw_only=True)
class RateMetric:
    """Describe one figure of throughput, `formula` in words."""

    name: str
    label: str
    title: str
    unit: str
    formula: str
    source: str
    direction: Literal["higher"] = "higher"


@dataclass(frozen=True)
class RunTotals:
    """Hold what the throughput of a run is computed from.

    `completed_qps` are answers completed per second between warm-up and the last arrival, None where none
    was; `answer_tokens` are the mean output tokens of an answer, `gpus` all allocated GPUs, and `loadgen_tps`
    LoadGen's own count of a run of full length.
    """

    completed_qps: float | None
    answer_tokens: float
    gpus: int
    loadgen_tps: float | None

    @property
    def output_tps(self) -> float | None:
        """Return what the rack did, not what it was offered, in output tokens/s."""
        return self.answer_tokens * self.completed_qps if self.completed_qps else None

    @property
    def output_tps_per_gpu(self) -> float | None:
        """Return the output tokens/s of the rack over its GPUs."""
        return None if self.output_tps is None else self.output_tps / self.gpus


@dataclass(frozen=True, kw_only=True)
class RunRate(RateMetric):
    """Describe one figure of throughput in the records, its field `name`; `of_run` computes `formula`."""

    of_run: Callable[[RunTotals], float | None]


@dataclass(frozen=True)
class Statistic:
    """Describe one statistic of a latency over the requests of a run.

    `name` is a field of every latency in outcome.json. `share` is the quantile in (0, 0.99], None for the
    mean. It is at most 0.99 because a short run of the capacity search has only as many requests as a
    verdict on a p99 needs.
    """

    name: str
    share: float | None
    title: str
    formula: str


@dataclass(frozen=True)
class LatencyLimit:
    """Describe a statistic of a latency on which the SLO may put a limit."""

    latency: LatencyMetric
    statistic: Statistic

    @cached_property
    def name(self) -> str:
        """Return the name of its constraint in outcome.json, such as "ttft_p99"."""
        return f"{self.latency.name}_{self.statistic.name}"

    @cached_property
    def key(self) -> str:
        """Return its setting under `slo`, such as "ttft_p99_s"."""
        return f"{self.name}_{self.latency.unit}"

    @cached_property
    def label(self) -> str:
        """Return what people read, such as "p99 TTFT"."""
        return f"{self.statistic.name} {self.latency.label}"

    def show(self, seconds: float) -> str:
        """Return a limit or figure as people read it, such as "4.5 s" or "80 ms"."""
        return self.latency.show(seconds)


OUTPUT_TPS_PER_GPU = RunRate(
    name="output_tps_per_gpu",
    label="output",
    title="output tokens/s per GPU",
    unit="tokens/s/GPU",
    formula="output_tps / all allocated GPUs, idle ones included",
    source="tune/analysis/measure.py",
    of_run=lambda run: run.output_tps_per_gpu,
)
"""The figure that ranks trials."""

RATES = (
    OUTPUT_TPS_PER_GPU,
    RunRate(
        name="output_tps",
        label="output",
        title="output tokens/s",
        unit="tokens/s",
        formula="mean output tokens of an answer x completed_qps",
        source="tune/analysis/measure.py",
        of_run=lambda run: run.output_tps,
    ),
    RunRate(
        name="loadgen_tps",
        label="LoadGen's",
        title="output tokens/s by LoadGen's own count",
        unit="tokens/s",
        formula="output tokens / time until the query that was issued last is done",
        source="MLPerf Inference, loadgen/results.cc",
        of_run=lambda run: run.loadgen_tps,
    ),
    RunRate(
        name="completed_qps",
        label="completed",
        title="answers completed per second",
        unit="queries/s",
        formula="answers completed per second between warm-up and the last arrival",
        source="tune/analysis/measure.py",
        of_run=lambda run: run.completed_qps,
    ),
)
"""Figures of throughput in outcome.json, the one that ranks first."""

OUTPUT_TPS, LOADGEN_TPS = RATES[1:3]

SCHEDULED_TPS = RateMetric(
    name="scheduled_tps",
    label="scheduled",
    title="output tokens/s of LoadGen's schedule",
    unit="tokens/s",
    formula="output tokens / time until the last query is issued",
    source="MLPerf Inference, loadgen/results.cc",
)
"""A figure of LoadGen's logs that calibration compares; outcome.json does not hold it."""

LATENCIES = (
    LatencyMetric(
        name="ttft",
        label="TTFT",
        title="time to first token",
        shown_unit="s",
        formula="first token - scheduled arrival",
        source="MLPerf Inference, loadgen/logging.cc",
        per_request_ns=ttft_ns,
        spent_in="prefill",
    ),
    LatencyMetric(
        name="tpot",
        label="TPOT",
        title="time per output token",
        shown_unit="ms",
        formula="(last token - first token) / (output tokens - 1), of answers with two tokens or more",
        source="MLPerf Inference, loadgen/logging.cc",
        per_request_ns=tpot_ns,
        spent_in="decode",
        min_tokens=2,
        title_suffix=" after the first",
    ),
    LatencyMetric(
        name="latency",
        label="latency",
        title="end-to-end latency",
        shown_unit="s",
        formula="last token - scheduled arrival",
        source="MLPerf Inference, loadgen/logging.cc",
        per_request_ns=latency_ns,
        spent_in="both",
    ),
)

TTFT, TPOT, LATENCY = LATENCIES[:3]

USER_TPS = RateMetric(
    name="tokens_per_s_per_user",
    label="per user",
    title="output tokens/s per user",
    unit="tokens/s/user",
    formula=f"1 / median {TPOT.label}",
    source="tune/spec/metrics.py",
)
"""How fast one user's answer grows. Figures and ranking.csv show it; outcome.json holds its TPOT."""


def user_tps(median_tpot_s: float | None) -> float | None:
    """Return USER_TPS; None where no answer had a second token."""
    return 1 / median_tpot_s if median_tpot_s else None


_QUANTILE = "entry at floor(n x share) of the ascending values (LoadGen, loadgen/results.cc)"
STATISTICS = (
    Statistic("p50", 0.50, "median", _QUANTILE),
    Statistic("p90", 0.90, "90th percentile", _QUANTILE),
    Statistic("p95", 0.95, "95th percentile", _QUANTILE),
    Statistic("p99", 0.99, "99th percentile", _QUANTILE),
    Statistic("mean", None, "mean", "sum of the values over their number"),
)

LIMITS = tuple(LatencyLimit(latency, statistic) for latency in LATENCIES for statistic in STATISTICS)
"""Every limit that the SLO may hold, by latency, then by statistic."""

TTFT_P99, TPOT_P99, LATENCY_P99 = (
    next(limit for limit in LIMITS if (limit.latency, limit.statistic.name) == (latency, "p99"))
    for latency in (TTFT, TPOT, LATENCY)
)

TTFT_MEAN = next(limit for limit in LIMITS if limit.name == "ttft_mean")

SHOWN_LIMITS = (TTFT_P99, TPOT_P99)
"""The statistics that report and exports show even where their limit is lifted; LoadGen judges them."""

LOADGEN_LIMITS = tuple(limit.key for limit in SHOWN_LIMITS)
"""Settings of the limits that LoadGen itself judges, always present in settings and records.

Source: MLPerf Inference, loadgen/test_settings.h, server_ttft_latency and server_tpot_latency. Every other
limit is judged by tune alone, and is absent from settings and records where it is lifted.
"""

FURTHER_LIMITS = tuple(limit for limit in LIMITS if limit.key not in LOADGEN_LIMITS)
"""The limits of LIMITS that LoadGen does not know."""
