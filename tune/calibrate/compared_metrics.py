"""List the metrics that a measured and a simulated run have in common, and read them."""

from __future__ import annotations

from collections.abc import Mapping

from tune.analysis.measure import completion_qps
from tune.loadgen.latencies import answered, latencies, percentiles_s
from tune.loadgen.log_reader import LoadGenFigures, LogLatency
from tune.records.outcome import Percentiles, Probe
from tune.records.requests import RequestLog
from tune.spec.metrics import LATENCIES, LOADGEN_TPS, OUTPUT_TPS, SCHEDULED_TPS, TPOT, TTFT, LatencyMetric

MetricName = tuple[str, str]
"""A quantity under its name in outcome.json, in its unit, and a statistic of it: ("ttft_s", "p99")."""

MetricValues = Mapping[MetricName, float]
"""Positive values; a metric that a run does not have is left out."""

FITTED_METRICS: tuple[MetricName, ...] = (
    (TTFT.field, "mean"),
    (TTFT.field, "p99"),
    (TPOT.field, "mean"),
    (TPOT.field, "p90"),
)
"""Metrics of a run that decide the fit. All others are predictions."""

_STATISTICS = ("mean", "p50", "p90", "p95", "p97", "p99")
"""Statistics in the order of the table, more than the registry's: LoadGen's logs also state a p97."""

ALL_METRICS: tuple[MetricName, ...] = (
    *((latency.field, name) for latency in LATENCIES for name in _STATISTICS),
    *((rate.name, "mean") for rate in (OUTPUT_TPS, LOADGEN_TPS, SCHEDULED_TPS)),
)
"""Every metric that is compared, in the order of the table."""


def metrics_of_probe(probe: Probe) -> MetricValues:
    """Return the metrics of a recorded probe. `output_tps` is the rate of tune.analysis.measure."""
    return {
        **_latencies({latency: probe.statistics_of(latency) for latency in LATENCIES}),
        **_rates(output_tps=probe.output_tps, loadgen_tps=probe.loadgen_tps),
    }


def metrics_of_logs(figures: LoadGenFigures) -> MetricValues:
    """Return the metrics of LoadGen's logs; `loadgen_tps` is its official output tokens/s."""
    rates = _rates(loadgen_tps=figures.tps, scheduled_tps=figures.scheduled_tps)
    return {**_latencies({latency: figures.statistics_of(latency) for latency in LATENCIES}), **rates}


def metrics_of_requests(log: RequestLog) -> MetricValues:
    """Return the metrics of a request record, by the rules of tune.analysis.measure and of LoadGen.

    `loadgen_tps` is all output tokens over the time until the last-issued query is done, `scheduled_tps` over
    the time until it is issued. Source: LoadGen, loadgen/results.cc.
    """
    is_answered = answered(log)
    times = latencies(log, is_answered)
    completed_qps = completion_qps(log, times, is_answered)
    output_tps = float(log.output_tokens[is_answered].mean()) * completed_qps if completed_qps else None
    tokens, last_s = float(log.output_tokens[is_answered].sum()), int(log.scheduled_ns[-1]) / 1e9
    rates = _rates(
        output_tps=output_tps,
        loadgen_tps=tokens / (int(log.done_ns[-1]) / 1e9) if is_answered[-1] else None,
        scheduled_tps=tokens / last_s if last_s else None,
    )
    measured = {latency: percentiles_s(values_ns) for latency, values_ns in times.items()}
    return {**_latencies(measured), **rates}


def _latencies(measured: Mapping[LatencyMetric, Percentiles | LogLatency | None]) -> MetricValues:
    """Return the positive statistics of the latencies."""
    values = {
        (latency.field, name): getattr(statistics, name)
        for latency, statistics in measured.items()
        if statistics
        for name in _STATISTICS
    }
    return {metric: value for metric, value in values.items() if value is not None and value > 0}


def _rates(**tps: float | None) -> MetricValues:
    """Return the rates that are known, as means."""
    return {(name, "mean"): rate for name, rate in tps.items() if rate}
