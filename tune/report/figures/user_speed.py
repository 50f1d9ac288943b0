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
from tune.spec.metrics import TPOT

NAME = "user_speed"
TITLE = "What does a user's speed cost in throughput?"

SPEED = "tokens_per_s_per_user"


def user_speed(valid: pd.DataFrame) -> Figure:
    """Draw throughput against 1 / median TPOT; `valid` holds valid measurements."""
    median_s = valid[f"{TPOT.name}_p50_s"]
    rows = valid.assign(**{SPEED: 1 / median_s.where(median_s > 0)}).dropna(subset=[TPS, SPEED])
    if rows.empty:
        return empty_figure(NAME, TITLE, f"Left out: no valid measurement has a {TPOT.label}.")
    figure = go.Figure()
    verdict_points(figure, rows, SPEED, TPS, f"{HOVER_TPS}<br>%{{x:.3g}} tokens/s/user")
    add_pareto_line(figure, rows[rows["feasible"]], SPEED, TPS, rising=True)
    figure.update_xaxes(title=f"output tokens/s per user (1 / median {TPOT.label})")
    figure.update_yaxes(title=TPS_TITLE)
    caption = (
        f"Each mark is one trial, n = {len(rows):,}. tokens/s/user is 1 / median {TPOT.label}. Up and right "
        "is better; the line joins the feasible trials that no other feasible one beats in both."
    )
    return make_figure(NAME, TITLE, caption, figure)
