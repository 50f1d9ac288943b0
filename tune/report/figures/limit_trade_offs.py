"""Draw throughput against the figure of every limit beyond those on p99 TTFT and p99 TPOT."""

from __future__ import annotations

import pandas as pd
from plotly import graph_objects as go

from tune.report.figures.style import (
    HOVER_TPS,
    TPS,
    TPS_TITLE,
    Figure,
    empty_figure,
    limit_line,
    make_figure,
    spans_decades,
    value_axis,
    verdict_points,
)
from tune.report.further_limits import further_limits_of
from tune.spec.load import Slo
from tune.spec.metrics import LatencyLimit


def trade_off_figures(slo: Slo, good: pd.DataFrame) -> list[Figure]:
    """Return throughput against the figure of each further limit; `good` holds the valid trials."""
    return [_trade_off(limit, limit_s, good) for limit, limit_s in further_limits_of(slo)]


def _trade_off(limit: LatencyLimit, limit_s: float, good: pd.DataFrame) -> Figure:
    """Return throughput against the figure of one limit."""
    name, unit, scale = limit.label, limit.latency.shown_unit, limit.latency.shown_scale
    title = f"What does throughput cost in {name}?"
    rows = good.assign(**{limit.name: good[limit.key] * scale}).dropna(subset=[TPS, limit.name])
    if rows.empty:
        return empty_figure(limit.name, title, f"Left out: no valid measurement has a {name}.")
    drawn, values = go.Figure(), rows[limit.name]
    hover = f"{HOVER_TPS}<br>{name} %{{x:.3g}} {unit}"
    verdict_points(drawn, rows, limit.name, TPS, hover)
    drawn.update_xaxes(value_axis(values, f"{name}, {unit}"))
    drawn.update_yaxes(title=TPS_TITLE)
    limit_line(drawn, "x", limit_s * scale, f"limit {limit.show(limit_s)}", spans_decades(values))
    within = int((values <= limit_s * scale).sum())
    caption = (
        f"Each mark is one trial, n = {len(rows):,}; {within:,} lie within the limit of "
        f"{limit.show(limit_s)} ({limit.latency.title}, {limit.statistic.name} over requests). "
        "Up and left is better."
    )
    return make_figure(limit.name, title, caption, drawn)
