"""Show every limit beyond those on p99 TTFT and p99 TPOT in the parts of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune.analysis.slo import figure_s
from tune.records.outcome import Outcome, Percentiles, Probe
from tune.report import formatting
from tune.spec.load import Slo
from tune.spec.metrics import LatencyLimit


def limit_phrases(slo: Slo) -> str:
    """Return ", mean TPOT within 30 ms" for each further limit, in one text."""
    return "".join(
        f", {limit.label} within {limit.show(limit_s)}" for limit, limit_s in further_limits_of(slo)
    )


def figure_phrases(slo: Slo, outcome: Outcome | Probe) -> str:
    """Return ", mean TPOT 20.1 ms of 30 ms" for each further limit, in one text."""
    return "".join(f", {line}" for line in figure_lines(slo, outcome))


def figure_lines(slo: Slo, outcome: Outcome | Probe) -> list[str]:
    """Return "mean TPOT 20.1 ms of 30 ms" for each further limit."""
    return [
        f"{limit.label} {_shown(limit, outcome)} of {limit.show(limit_s)}"
        for limit, limit_s in further_limits_of(slo)
    ]


def tile_facts(slo: Slo, outcome: Outcome) -> list[tuple[str, str, str, str, float | None]]:
    """Return label, value, unit, note and used share of a tile for each further limit."""
    return [
        (
            limit.label,
            formatting.format_figure(_value(limit, outcome)),
            limit.latency.shown_unit,
            f"limit {limit.show(limit_s)}",
            outcome.constraints.used.get(limit),
        )
        for limit, limit_s in further_limits_of(slo)
    ]


def table_columns(slo: Slo) -> dict[str, list[dict[str, Any]]]:
    """Return the columns of the table of trials for further limits, {} without one.

    A column names the row's field, the place of its statistic in the percentiles, the factor to its unit
    and its limit in that unit.
    """
    statistics = list(Percentiles.model_fields)
    columns = [
        {
            "title": limit.label,
            "unit": limit.latency.shown_unit,
            "field": limit.latency.field,
            "statistic": statistics.index(limit.statistic.name),
            "scale": limit.latency.shown_scale,
            "limit": limit_s * limit.latency.shown_scale,
        }
        for limit, limit_s in further_limits_of(slo)
    ]
    return {"further_limits": columns} if columns else {}


def further_limits_of(slo: Slo) -> Sequence[tuple[LatencyLimit, float]]:
    """Return every further limit that is set, with its value in seconds."""
    return [(limit, limit_s) for limit, limit_s in slo.limits if limit in slo.further]


def _value(limit: LatencyLimit, outcome: Outcome | Probe) -> float | None:
    """Return the figure of a limit in its shown unit, None where it was not measured."""
    value_s = figure_s(limit, getattr(outcome, limit.latency.field))
    return None if value_s is None else value_s * limit.latency.shown_scale


def _shown(limit: LatencyLimit, outcome: Outcome | Probe) -> str:
    """Return the figure of a limit with its unit."""
    return f"{formatting.format_figure(_value(limit, outcome))} {limit.latency.shown_unit}"
