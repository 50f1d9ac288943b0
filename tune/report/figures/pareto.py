"""Find and draw the trials that no other trial beats in two figures at once."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report.figures.style import FEASIBLE


def pareto_front(rows: pd.DataFrame, x: str, y: str, *, rising: bool) -> pd.DataFrame:
    """Return the rows on the Pareto front, in ascending order of `x`.

    More of `y` is better; of `x` more is better if `rising`, else less.
    """
    ordered = rows.sort_values([x, y], ascending=[not rising, False])
    heights = ordered[y].astype("float64")
    front = ordered[heights > heights.cummax().shift(fill_value=float("-inf"))]
    return front.sort_values(x)


def add_pareto_line(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, *, rising: bool) -> None:
    """Add the Pareto front as a line; one of fewer than two trials is left out."""
    front = pareto_front(rows, x, y, rising=rising)
    if len(front) < 2:
        return
    line = {"color": FEASIBLE, "width": 1.5, "shape": "vh" if rising else "hv"}
    figure.add_trace(
        go.Scatter(
            x=front[x].tolist(),
            y=front[y].tolist(),
            mode="lines",
            line=line,
            name="Pareto line",
            hoverinfo="skip",
        )
    )
