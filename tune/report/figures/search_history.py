"""Draw the throughput of the trials over the GPU-hours that the search has spent."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report import formatting
from tune.report.figures.style import (
    HOVER_TPS,
    TEXT,
    TPS,
    TPS_TITLE,
    Figure,
    empty_figure,
    limit_line,
    make_figure,
    verdict_points,
)

SPENT = "spent_gpu_hours"
"""Column of the GPU-hours of a trial and of all trials before it."""


def search_history(rows: pd.DataFrame, valid: pd.DataFrame) -> Figure:
    """Draw the history of a search; `rows` holds all trials, `valid` those with a valid measurement."""
    title = "What did the search gain for its GPU-hours?"
    if len(rows) < 2:
        return empty_figure("history", title, "Left out: a single trial has no history.")
    ordered = rows.sort_values("number")
    spent = ordered.set_index("number")["gpu_hours"].cumsum()
    known = valid.assign(**{SPENT: valid["number"].map(spent)})
    figure = go.Figure()
    verdict_points(figure, known, SPENT, TPS, f"{HOVER_TPS}<br>after %{{x:,.4g}} GPU-hours")
    _best_so_far(figure, known, float(spent.iloc[-1]))
    baseline = known[known["baseline"] & known["feasible"]]
    if len(baseline):
        level = float(baseline[TPS].iloc[0])
        limit_line(figure, "y", level, f"baseline {formatting.format_figure(level, 4)}")
    figure.update_xaxes(title="GPU-hours spent, in the order of the trials", rangemode="tozero")
    figure.update_yaxes(title=TPS_TITLE)
    missing = len(rows) - len(valid)
    without = f"; {formatting.plural(missing, 'more trial')} without a valid measurement" if missing else ""
    caption = (
        f"Trials in the order proposed, n = {len(valid):,} drawn{without}. Each mark stands at the GPU-hours "
        f"of its trial and of all before it, {formatting.format_figure(float(spent.iloc[-1]), 4)} in total."
    )
    return make_figure("history", title, caption, figure)


def _best_so_far(figure: go.Figure, known: pd.DataFrame, end: float) -> None:
    """Add the running maximum over feasible trials as a stepped line up to the last trial."""
    feasible = known[known["feasible"]].sort_values("number")
    if feasible.empty:
        return
    steps = feasible.assign(running=feasible[TPS].cummax())
    steps = steps[steps["running"] > steps["running"].shift(fill_value=0.0)]
    x = [*steps[SPENT].tolist(), end]
    y = [*steps["running"].tolist(), float(steps["running"].iloc[-1])]
    line = {"shape": "hv", "width": 2, "color": TEXT}
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line=line, name="best feasible so far", hoverinfo="skip")
    )
