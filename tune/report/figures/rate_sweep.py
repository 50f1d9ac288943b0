"""Draw throughput and latencies against the request rate, where it is all that a study varies."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.records.study_record import StudyRecord
from tune.report.figures.style import (
    FEASIBLE,
    TPS,
    TPS_TITLE,
    Figure,
    column_of,
    limit_line,
    limit_of,
    make_figure,
    numbers,
    spans_decades,
    value_axis,
    verdict_points,
)

RATE_TITLE = "target rate, queries/s"


def is_rate_sweep(study: StudyRecord) -> bool:
    """Return True if the request rate is all that the study varies."""
    return [d.path for d in study.space.values()] == ["load.target_qps"]


def rate_sweep(study: StudyRecord, valid: pd.DataFrame) -> Figure:
    """Draw a panel for throughput and one for each limit; `valid` holds valid measurements."""
    panels: list[tuple[str, str, str, float | None]] = [("Output throughput", TPS, TPS_TITLE, None)]
    for shown in study.slo.shown:
        axis_title = f"{shown.label}, {shown.latency.shown_unit}"
        panels.append((shown.label, column_of(shown), axis_title, limit_of(study, shown)))
    panels = [panel for panel in panels if valid[panel[1]].notna().any()]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    rows = valid.sort_values("target_qps")
    for number, (name, column, title, limit) in enumerate(panels, start=1):
        figure.add_trace(
            go.Scatter(
                x=numbers(rows["target_qps"]),
                y=numbers(rows[column]),
                mode="lines",
                hoverinfo="skip",
                line={"color": FEASIBLE, "width": 1},
                showlegend=False,
            ),
            row=number,
            col=1,
        )
        panel = go.Figure()
        verdict_points(panel, rows, "target_qps", column, f"{name} %{{y:.4g}}<br>%{{x:.4g}} queries/s")
        for trace in panel.data:
            figure.add_trace(trace.update(showlegend=number == 1, legendgroup=trace.name), row=number, col=1)
        axis = "y" if number == 1 else f"y{number}"
        figure.update_yaxes(value_axis(rows[column], title), row=number, col=1)
        if limit is not None:
            limit_line(figure, axis, limit, f"limit {limit:g}", spans_decades(rows[column]))
    figure.update_xaxes(title=RATE_TITLE, row=len(panels), col=1)
    caption = f"One trial per rate, n = {len(rows):,}; dashed lines are the limits."
    return make_figure(
        "load", "How do throughput and latency grow with the rate?", caption, figure, 280 * len(panels)
    )
