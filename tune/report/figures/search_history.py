"""Draw throughput against trial number, with the best feasible trial so far."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report import formatting
from tune.report.figures.style import (
    HOVER_TPS,
    MANY_POINTS,
    TEXT,
    TPS,
    TPS_TITLE,
    Figure,
    empty_figure,
    limit_line,
    make_figure,
    verdict_points,
)


def search_history(rows: pd.DataFrame, valid: pd.DataFrame) -> Figure:
    """Draw the history of a search; `rows` holds all trials, `valid` those with a valid measurement."""
    title = "How did the search proceed?"
    if len(rows) < 2:
        return empty_figure("history", title, "Left out: a single trial has no history.")
    figure = go.Figure()
    verdict_points(figure, valid, "number", TPS, HOVER_TPS)
    _best_so_far(figure, rows, valid)
    baseline = valid[valid["baseline"] & valid["feasible"]]
    if len(baseline):
        level = float(baseline[TPS].iloc[0])
        limit_line(figure, "y", level, f"baseline {formatting.format_figure(level, 4)}")
    figure.update_xaxes(title="trial number")
    figure.update_yaxes(title=TPS_TITLE)
    missing = len(rows) - len(valid)
    without = f"; {formatting.plural(missing, 'more trial')} without a valid measurement" if missing else ""
    caption = f"Trials in the order proposed, n = {len(valid):,} drawn{without}."
    return make_figure("history", title, caption, figure)


def _best_so_far(figure: go.Figure, rows: pd.DataFrame, valid: pd.DataFrame) -> None:
    """Add the running maximum over feasible trials as a stepped line up to the last trial."""
    feasible = valid[valid["feasible"]].sort_values("number")
    if feasible.empty:
        return
    steps = feasible.assign(running=feasible[TPS].cummax())
    steps = steps[steps["running"] > steps["running"].shift(fill_value=0.0)]
    x = [*steps["number"].tolist(), int(rows["number"].max())]
    y = [*steps["running"].tolist(), float(steps["running"].iloc[-1])]
    line = {"shape": "hv", "width": 2, "color": TEXT}
    kind = go.Scattergl if len(valid) > MANY_POINTS else go.Scatter
    figure.add_trace(kind(x=x, y=y, mode="lines", line=line, name="best feasible so far", hoverinfo="skip"))
