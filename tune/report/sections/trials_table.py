"""Compute the ranked table of trials as data: what every row shows, and its details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune.analysis.slo import figure_s
from tune.records.outcome import Bottleneck, Breakdown, LatencySpread, Outcome, Percentiles, ShuffleSpread
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import (
    describe_capacity,
    describe_cost,
    is_capacity_search,
    probe_length,
    probe_status,
)
from tune.report.kind_label import kind_label
from tune.report.run_check_text import RESULT_WORDS, check_title
from tune.report.trial_status import TRIAL_STATUS_MEANING, TRIAL_STATUS_WORDS, TRIAL_STATUSES, trial_status
from tune.spec.load import Slo
from tune.spec.metrics import LATENCIES, LatencyMetric
from tune.spec.space import Value

PERCENTILES = tuple(Percentiles.model_fields)
STAGES = tuple(Breakdown.model_fields)


def trials_table(study: StudyRecord, outcomes: Sequence[Outcome], ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return the table as JSON values.

    `outcomes` holds each trial once; `ranks` holds the rank of every measured trial by its id. Each override
    is written once, quoted for a shell, and rows refer to it by index, because thousands of rows share most
    of theirs. Figures keep five significant digits; `output` is the throughput as every part of the page
    shows it.
    """
    names, limits_s = _param_names(study, outcomes), dict(study.slo.limits)
    override_indices: dict[str, int] = {}
    status_order = {status: index for index, status in enumerate(TRIAL_STATUSES)}
    last = len(outcomes) + 1
    ordered = sorted(
        outcomes, key=lambda o: (ranks.get(o.trial_id, last), status_order[trial_status(o)], o.number)
    )
    rows = [_row(o, names, ranks.get(o.trial_id), study, override_indices) for o in ordered]
    return {
        "params": [_column(name, study) for name in names],
        "statuses": [
            {"key": status, "word": TRIAL_STATUS_WORDS[status], "meaning": TRIAL_STATUS_MEANING[status]}
            for status in TRIAL_STATUSES
        ],
        "percentiles": [name.replace("p99_9", "p99.9") for name in PERCENTILES],
        "stages": STAGES,
        "latencies": [_latency_column(metric) for metric in LATENCIES],
        "limits": [
            {
                "title": limit.label,
                **_latency_column(limit.latency),
                "statistic": PERCENTILES.index(limit.statistic.name),
                "limit": limits_s[limit] * limit.latency.shown_scale if limit in limits_s else None,
            }
            for limit in study.slo.shown
        ],
        "command": formatting.COMMAND,
        "fields": list(rows[0]) if rows else [],
        "rows": [list(row.values()) for row in rows],
        "overrides": list(override_indices),
    }


def _param_names(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the dimensions of the space, except rate and split, which have columns of their own."""
    names = dict.fromkeys([*study.space, *(name for o in outcomes for name in formatting.params(o))])
    paths_of_columns = ("load.target_qps", *formatting.SPLIT_PATHS)
    return [n for n in names if n not in study.space or study.space[n].path not in paths_of_columns]


def _column(name: str, study: StudyRecord) -> dict[str, str]:
    """Return title and unit of the column of a dimension."""
    dimension = study.space.get(name)
    if dimension is None:
        return {"title": name, "unit": ""}
    return {
        "title": formatting.setting_name(name, dimension),
        "unit": formatting.unit(dimension, study.engine),
    }


def _latency_column(metric: LatencyMetric) -> dict[str, Any]:
    """Return name, unit, the row's field and the factor from seconds to the unit of a latency."""
    return {
        "name": metric.label,
        "unit": metric.shown_unit,
        "field": metric.field,
        "scale": metric.shown_scale,
    }


def _row(
    outcome: Outcome,
    names: Sequence[str],
    rank: int | None,
    study: StudyRecord,
    override_indices: dict[str, int],
) -> dict[str, Any]:
    """Return the fields of one trial; `override_indices` grows by the overrides that are new."""
    point = formatting.params(outcome)
    return {
        "rank": rank,
        "number": outcome.number,
        "id": outcome.trial_id,
        "source": outcome.source,
        "status": trial_status(outcome),
        "kind": kind_label(outcome, study),
        "label": formatting.describe_configuration(outcome, study.space),
        "reason": outcome.reason,
        "tps_gpu": outcome.output_tps_per_gpu,
        "output": formatting.format_figure(outcome.output_tps_per_gpu, 4),
        "qps": short(outcome.target_qps),
        **{metric.field: _percentiles(outcome.statistics_of(metric)) for metric in LATENCIES},
        "completed_qps": short(outcome.completed_qps),
        "loadgen_tps": short(outcome.loadgen_tps),
        "hours": short(outcome.gpu_hours),
        "attempts": len(outcome.attempts),
        "params": [_shown(point, name) for name in names],
        "overrides": _indices(formatting.overrides(outcome), override_indices),
        "stages": outcome.breakdown and [short(getattr(outcome.breakdown, name)) for name in STAGES],
        "capacity": _capacity(outcome, study.slo),
        "spread": outcome.spread and _spread(outcome.spread, study.slo),
        "bottleneck": outcome.bottleneck and _bottleneck(outcome.bottleneck),
        "checks": [
            [check_title(check), RESULT_WORDS[check.result], check.found, check.threshold]
            for check in outcome.checks
        ],
    }


def _indices(overrides: list[str] | None, override_indices: dict[str, int]) -> list[int] | None:
    """Return the index of each override; a new one gets the next index."""
    if overrides is None:
        return None
    quoted = map(formatting.quoted, overrides)
    return [override_indices.setdefault(text, len(override_indices)) for text in quoted]


def _percentiles(percentiles: Percentiles | None) -> list[float | None] | None:
    """Return the percentiles of a latency in seconds, in the order of PERCENTILES."""
    return [short(getattr(percentiles, name)) for name in PERCENTILES] if percentiles else None


def _spread(spread: ShuffleSpread, slo: Slo) -> list[Any]:
    """Return shuffles, shuffles that held the SLO, and the spread of the figure of each limit shown."""
    return [spread.shuffles, spread.slo_met, [_latency_spread(spread.of(limit)) for limit in slo.shown]]


def _latency_spread(spread: LatencySpread | None) -> list[float | None] | None:
    """Return mean, sd, min and max of a figure over shuffles, s."""
    return [short(spread.mean), short(spread.sd), short(spread.min), short(spread.max)] if spread else None


def _bottleneck(bottleneck: Bottleneck) -> list[Any]:
    """Return name, evidence, and recommendations as pairs of text and overrides quoted for a shell."""
    recommendations = [
        [recommendation.text, " ".join(map(formatting.quoted, recommendation.overrides))]
        for recommendation in bottleneck.recommendations
    ]
    return [formatting.BOTTLENECK_NAMES[bottleneck.kind], bottleneck.evidence, recommendations]


def _capacity(outcome: Outcome, slo: Slo) -> dict[str, Any] | None:
    """Return the rates and cost as text, and every probe; None if one rate was measured."""
    if not is_capacity_search(outcome):
        return None
    probes = [
        [
            probe_length(probe),
            probe_status(probe),
            short(probe.target_qps),
            probe.queries,
            *(short(figure_s(limit, probe.statistics_of(limit.latency))) for limit in slo.shown),
        ]
        for probe in outcome.probes
    ]
    return {"text": f"{describe_capacity(outcome)}. Cost: {describe_cost(outcome)}.", "probes": probes}


def short(value: float | None, significant: int = 5) -> float | None:
    """Round to `significant` digits; five are more than a repeated run reproduces and keep the page small."""
    return None if value is None else float(f"{value:.{significant}g}")


def _shown(point: Mapping[str, Value], name: str) -> Value:
    """Return a value of a point for the table, null and lists as text; None where the point has none."""
    value = point.get(name)
    as_text = name in point and (value is None or isinstance(value, tuple))
    return formatting.setting(value) if as_text else value
