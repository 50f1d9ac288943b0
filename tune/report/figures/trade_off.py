"""Draw throughput against one figure of a latency, with a mark per trial."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report.figures.style import (
    HOVER_TPS,
    TPS,
    TPS_TITLE,
    Figure,
    column_of,
    empty_figure,
    limit_line,
    limit_of,
    make_figure,
    spans_decades,
    value_axis,
    verdict_points,
)
from tune.spec.metrics import LatencyLimit


def trade_off(study: StudyRecord, valid: pd.DataFrame, shown: LatencyLimit) -> Figure:
    """Draw throughput against the figure of the limit `shown`; `valid` holds valid measurements."""
    metric, name, column = shown.latency, shown.label, column_of(shown)
    key, unit = shown.name, metric.shown_unit
    title = f"What does throughput cost in {name}?"
    limit = limit_of(study, shown)
    rows = valid.dropna(subset=[TPS, column])
    if limit is None:
        return empty_figure(key, title, f"Left out: the study sets no limit on {name}.")
    if rows.empty:
        return empty_figure(key, title, f"Left out: no valid measurement has a {name}.")
    figure = go.Figure()
    verdict_points(figure, rows, column, TPS, f"{HOVER_TPS}<br>{name} %{{x:.3g}} {unit}")
    figure.update_xaxes(value_axis(rows[column], f"{name}, {unit}"))
    figure.update_yaxes(title=TPS_TITLE)
    limit_line(figure, "x", limit, f"limit {limit:g} {unit}", spans_decades(rows[column]))
    within = int((rows[column] <= limit).sum())
    caption = (
        f"Each mark is one trial, n = {len(rows):,}; {within:,} lie within the limit of {limit:g} {unit} "
        f"({metric.title}, {shown.statistic.title} over requests). Up and left is better."
    )
    return make_figure(key, title, caption, figure)
