"""Compute the tiles of the answer: its main figures in large type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.slo import figure_s
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import is_capacity_search
from tune.report.trial_status import baseline_trial, limit_shares
from tune.report.verdict_robustness import sd_over_shuffles
from tune.spec.load import Slo
from tune.spec.metrics import OUTPUT_TPS_PER_GPU, LatencyLimit


@dataclass(frozen=True)
class Tile:
    """Hold one figure in large type. `share` of a limit is drawn as a bar; None draws none."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None


def answer_tiles(study: StudyRecord, outcomes: Sequence[Outcome], top: Outcome) -> tuple[Tile, ...]:
    """Return the tiles of throughput, of every limit that is shown and of the rate of the trial `top`."""
    baseline = baseline_trial(study, outcomes)
    note = f"{formatting.format_figure(top.output_tps, 4)} tokens/s over {top.gpus} GPUs"
    if baseline and baseline is not top and baseline.output_tps_per_gpu and top.output_tps_per_gpu:
        change = top.output_tps_per_gpu / baseline.output_tps_per_gpu - 1
        note = f"{formatting.signed_percent(change)} against the baseline"
    throughput = formatting.format_figure(top.output_tps_per_gpu, 4)
    return (
        Tile("Output throughput", throughput, OUTPUT_TPS_PER_GPU.unit, note),
        *(_latency_tile(limit, study.slo, top) for limit in study.slo.shown),
        _rate_tile(top),
    )


def _latency_tile(limit: LatencyLimit, slo: Slo, top: Outcome) -> Tile:
    """Return the tile of a latency: its statistic, its limit, its spread and the used share of the limit."""
    metric, limit_s = limit.latency, dict(slo.limits).get(limit)
    value_s = figure_s(limit, getattr(top, metric.field))
    spread = top.spread.of(limit) if top.spread else None
    return Tile(
        limit.label,
        formatting.format_figure(value_s and value_s * metric.shown_scale),
        metric.shown_unit,
        (f"limit {limit.show(limit_s)}" if limit_s else "no limit") + sd_over_shuffles(spread, metric),
        limit_shares(top).get(limit.label),
    )


def _rate_tile(top: Outcome) -> Tile:
    """Return the tile of the rate: the verified one of a capacity search, otherwise the offered one."""
    completed = f"{formatting.format_figure(top.completed_qps, 4)} QPS completed"
    rates = top.capacity_qps
    if rates.low is None or not is_capacity_search(top):
        return Tile("Request rate", f"{top.target_qps:.4g}", "QPS offered", completed)
    notes = [f"{rates.high:.4g} missed"] if rates.high else []
    notes += [f"estimated capacity {rates.estimate:.4g}"] if rates.estimate else []
    return Tile("Verified rate", f"{rates.low:.4g}", "QPS", ", ".join(notes or [completed]))
