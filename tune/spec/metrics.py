"""Declare every metric once: name, unit, direction, formula, source and how it is shown.

Settings, verdicts, capacity search, forecast, ranking and report derive their fields, columns and labels
from the tables below. Another metric or statistic is one more row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tune.core.binomial_test import min_queries


@dataclass(frozen=True)
class LatencyMetric:
    """Describe one latency of a request.

    `name` is the stem of its fields: `<name>_s` in outcome.json, `<name>_ns` in Latencies. `shown_unit` is
    the unit in which people read it, `shown_scale` the factor from seconds to that unit.
    """

    name: str
    label: str
    title: str
    shown_unit: Literal["s", "ms"]
    formula: str
    source: str
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


@dataclass(frozen=True)
class RateMetric:
    """Describe one figure of throughput; `name` is its field in outcome.json."""

    name: str
    label: str
    unit: str
    formula: str
    source: str
    direction: Literal["higher"] = "higher"


@dataclass(frozen=True)
class Statistic:
    """Describe one statistic of a latency over the requests of a run.

    `name` is a field of Percentiles in outcome.json. `share` is the quantile in (0, 0.99], None for the
    mean. It is at most 0.99 because a short run of the capacity search has only as many requests as a
    verdict on a p99 needs.
    """

    name: str
    share: float | None
    formula: str

    @property
    def min_queries(self) -> int:
        """Return the fewest requests that allow a verdict, 2 for the mean."""
        return 2 if self.share is None else min_queries(self.share)


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


RATES = (
    RateMetric(
        name="output_tps_per_gpu",
        label="output",
        unit="tokens/s/GPU",
        formula="output_tps / all allocated GPUs, idle ones included",
        source="tune/analysis/measure.py",
    ),
    RateMetric(
        name="output_tps",
        label="output",
        unit="tokens/s",
        formula="mean output tokens of an answer x completed_qps",
        source="tune/analysis/measure.py",
    ),
    RateMetric(
        name="loadgen_tps",
        label="LoadGen's own count",
        unit="tokens/s",
        formula="output tokens / time until the query that was issued last is done",
        source="MLPerf Inference, loadgen/results.cc",
    ),
    RateMetric(
        name="completed_qps",
        label="completed",
        unit="queries/s",
        formula="answers completed per second between warm-up and the last arrival",
        source="tune/analysis/measure.py",
    ),
)
"""Figures of throughput, the one that ranks first."""

LATENCIES = (
    LatencyMetric(
        name="ttft",
        label="TTFT",
        title="time to first token",
        shown_unit="s",
        formula="first token - scheduled arrival",
        source="MLPerf Inference, loadgen/logging.cc",
    ),
    LatencyMetric(
        name="tpot",
        label="TPOT",
        title="time per output token",
        shown_unit="ms",
        formula="(last token - first token) / (output tokens - 1), of answers with two tokens or more",
        source="MLPerf Inference, loadgen/logging.cc",
    ),
    LatencyMetric(
        name="latency",
        label="latency",
        title="end-to-end latency",
        shown_unit="s",
        formula="last token - scheduled arrival",
        source="MLPerf Inference, loadgen/logging.cc",
    ),
)

_QUANTILE = "entry at floor(n x share) of the ascending values (LoadGen, loadgen/results.cc)"
STATISTICS = (
    Statistic("p50", 0.50, _QUANTILE),
    Statistic("p90", 0.90, _QUANTILE),
    Statistic("p95", 0.95, _QUANTILE),
    Statistic("p99", 0.99, _QUANTILE),
    Statistic("mean", None, "sum of the values over their number"),
)

LIMITS = tuple(LatencyLimit(latency, statistic) for latency in LATENCIES for statistic in STATISTICS)
"""Every limit that the SLO may hold, by latency, then by statistic."""

LOADGEN_LIMITS = ("ttft_p99_s", "tpot_p99_s")
"""Settings of the limits that LoadGen itself judges, always present in settings and records.

Source: MLPerf Inference, loadgen/test_settings.h, server_ttft_latency and server_tpot_latency. Every other
limit is judged by tune alone, and is absent from settings and records where it is lifted.
"""

FURTHER_LIMITS = tuple(limit for limit in LIMITS if limit.key not in LOADGEN_LIMITS)
"""The limits of LIMITS that LoadGen does not know."""
