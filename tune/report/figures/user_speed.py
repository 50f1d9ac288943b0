"""Draw throughput per GPU against the speed that one user sees."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report.figures.pareto import add_pareto_line
from tune.report.figures.style import (
    HOVER_TPS,
    TPS,
    TPS_TITLE,
    Figure,
    empty_figure,
    make_figure,
    verdict_points,
)
from tune.spec.metrics import TPOT, USER_TPS, user_tps

NAME = "user_speed"
TITLE = "What does a user's speed cost in throughput?"

SPEED = USER_TPS.name


def user_speed(valid: pd.DataFrame) -> Figure:
    """Draw throughput against USER_TPS; `valid` holds valid measurements."""
    speeds = valid[f"{TPOT.name}_p50_s"].map(user_tps).astype(float)
    rows = valid.assign(**{SPEED: speeds}).dropna(subset=[TPS, SPEED])
    if rows.empty:
        return empty_figure(NAME, TITLE, f"Left out: no valid measurement has a {TPOT.label}.")
    figure = go.Figure()
    verdict_points(figure, rows, SPEED, TPS, f"{HOVER_TPS}<br>%{{x:.3g}} {USER_TPS.unit}")
    add_pareto_line(figure, rows[rows["feasible"]], SPEED, TPS, rising=True)
    figure.update_xaxes(title=f"{USER_TPS.title} ({USER_TPS.formula})")
    figure.update_yaxes(title=TPS_TITLE)
    caption = (
        f"Each mark is one trial, n = {len(rows):,}. {USER_TPS.unit} is {USER_TPS.formula}. Up and right "
        "is better; the line joins the feasible trials that no other feasible one beats in both."
    )
    return make_figure(NAME, TITLE, caption, figure)
