"""Draw throughput against one figure of a latency, with a mark per trial."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures.pareto import add_pareto_line
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
    verdict_points,
)
from tune.spec.metrics import LatencyLimit

SHOWN_LIMITS_WIDE = 2.0
"""Right end of the latency axis as a multiple of the limit: what lies beyond decides nothing."""

HEADROOM_FRAC = 0.06


def trade_off(study: StudyRecord, valid: pd.DataFrame, shown: LatencyLimit) -> Figure:
    """Draw throughput against the figure of the limit `shown`; `valid` holds valid measurements.

    The axes are cut to what lies within SHOWN_LIMITS_WIDE times the limit.
    """
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
    add_pareto_line(figure, rows[rows["feasible"]], column, TPS, rising=False)
    figure.update_xaxes(title=f"{name}, {unit}")
    figure.update_yaxes(title=TPS_TITLE)
    beyond = _cut_axes(figure, rows, column, SHOWN_LIMITS_WIDE * limit)
    limit_line(figure, "x", limit, f"limit {limit:g} {unit}")
    within = int((rows[column] <= limit).sum())
    cut = (
        f" {formatting.plural(beyond, 'trial')} beyond {SHOWN_LIMITS_WIDE:g} times the limit: the button "
        "Autoscale shows them."
        if beyond
        else ""
    )
    caption = (
        f"Each mark is one trial, n = {len(rows):,}; {within:,} lie within the limit of {limit:g} {unit} "
        f"({metric.title}, {shown.statistic.title} over requests).{cut} Up and left is better; the line "
        "joins the feasible trials that no other feasible one beats in both."
    )
    return make_figure(key, title, caption, figure)


def _cut_axes(figure: go.Figure, rows: pd.DataFrame, column: str, end: float) -> int:
    """Cut both axes to the trials up to `end`, and return how many lie beyond it; cut nothing if all do."""
    near = rows[rows[column] <= end]
    if near.empty or len(near) == len(rows):
        return 0
    for update, values in ((figure.update_xaxes, near[column]), (figure.update_yaxes, near[TPS])):
        low, high = float(values.min()), float(values.max())
        room = HEADROOM_FRAC * (high - low or high)
        update(range=[low - room, high + room])
    figure.update_xaxes(range=[float(near[column].min()) - HEADROOM_FRAC * end, end])
    return len(rows) - len(near)
