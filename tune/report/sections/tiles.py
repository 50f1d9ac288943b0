"""Compute the tiles of the answer: its main figures in large type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.slo import figure_s
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import is_capacity_search
from tune.report.recommended import RecommendedConfiguration, verified_or_offered_qps
from tune.report.trial_status import baseline_trial, limit_shares, slo_clause
from tune.spec.load import Slo
from tune.spec.metrics import OUTPUT_TPS, OUTPUT_TPS_PER_GPU, LatencyLimit


@dataclass(frozen=True)
class Tile:
    """Hold one figure in large type. `share` of a limit is drawn as a bar; None draws none."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None


def recommended_tiles(
    study: StudyRecord, outcomes: Sequence[Outcome], recommended: RecommendedConfiguration
) -> tuple[Tile, ...]:
    """Return the tiles of throughput, rate and, before a confirmation, of every latency that is shown."""
    trial, baseline = recommended.trial, baseline_trial(study, outcomes)
    per_gpu, note = recommended.output_tps_per_gpu, "all allocated GPUs count"
    if baseline and baseline is not trial and not baseline.feasible:
        note = f"the baseline {slo_clause(baseline)}"
    elif baseline and baseline is not trial and baseline.output_tps_per_gpu and per_gpu:
        change = formatting.signed_percent(per_gpu / baseline.output_tps_per_gpu - 1)
        note = f"{change} against the baseline"
    latencies = () if recommended.confirmed else _latency_tiles(study.slo, trial)
    return (
        *_throughput_tiles(recommended.output_tps, per_gpu, recommended.gpus, note),
        _rate_tile(recommended.rate_qps, trial, is_guaranteed=recommended.confirmed is not None),
        *latencies,
    )


def closest_tiles(study: StudyRecord, top: Outcome) -> tuple[Tile, ...]:
    """Return the tiles of a trial that missed its limits."""
    return (
        *_throughput_tiles(top.output_tps, top.output_tps_per_gpu, top.gpus, slo_clause(top)),
        _rate_tile(verified_or_offered_qps(top), top, is_guaranteed=False),
        *_latency_tiles(study.slo, top),
    )


def _throughput_tiles(total: float | None, per_gpu: float | None, gpus: int, note: str) -> tuple[Tile, Tile]:
    """Return the tiles of total throughput and of throughput per GPU."""
    return (
        Tile("Output", formatting.format_figure(total, 4), OUTPUT_TPS.unit, f"over {gpus} GPUs"),
        Tile("Per GPU", formatting.format_figure(per_gpu, 4), OUTPUT_TPS_PER_GPU.unit, note),
    )


def _latency_tiles(slo: Slo, top: Outcome) -> tuple[Tile, ...]:
    """Return the tile of every latency that is shown."""
    return tuple(_latency_tile(limit, slo, top) for limit in slo.shown)


def _latency_tile(limit: LatencyLimit, slo: Slo, top: Outcome) -> Tile:
    """Return the tile of a latency: its statistic, its limit and the used share of the limit."""
    metric, limit_s = limit.latency, dict(slo.limits).get(limit)
    value_s = figure_s(limit, top.statistics_of(metric))
    return Tile(
        limit.label,
        formatting.format_figure(value_s and value_s * metric.shown_scale),
        metric.shown_unit,
        f"limit {limit.show(limit_s)}" if limit_s else "no limit",
        limit_shares(top).get(limit.label),
    )


def _rate_tile(rate_qps: float | None, trial: Outcome, *, is_guaranteed: bool) -> Tile:
    """Return the tile of the rate: guaranteed, verified by a capacity search, or offered."""
    completed_qps = formatting.format_figure(trial.completed_qps, 4)
    if rate_qps is None:
        return Tile("Closed loop", f"{trial.concurrency}", "users", f"{completed_qps} queries/s completed")
    value = f"{rate_qps:.4g}"
    if is_guaranteed:
        return Tile("Guaranteed rate", value, "queries/s", "confirmed on new deployments")
    rates = trial.capacity_qps
    if rates.low is None or not is_capacity_search(trial):
        return Tile("Request rate", value, "queries/s", f"{completed_qps} completed")
    notes = [f"{rates.high:.4g} missed"] if rates.high else []
    notes += [f"estimated capacity {rates.estimate:.4g}"] if rates.estimate else []
    return Tile("Verified rate", value, "queries/s", ", ".join(notes or [f"{completed_qps} completed"]))
