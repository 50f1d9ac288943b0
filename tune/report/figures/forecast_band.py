"""Draw what a capacity search expects of full runs at any rate: a line, and its range over shuffles."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from tune.records.capacity_search import ForecastPoint
from tune.records.outcome import Outcome
from tune.report.figures.style import QUIET
from tune.spec.metrics import LatencyLimit

BAND = "var(--band)"


def forecast_traces(
    outcome: Outcome, limit: LatencyLimit, limit_s: float, ends_qps: tuple[float, float]
) -> list[go.Scatter]:
    """Return the traces of the forecast of `limit` between two rates; none if nothing is forecast there.

    The line is the median over the simulated shuffles, the band their range.
    """
    points = _points_between(outcome.forecast, limit, *ends_qps)
    if len(points) < 2:
        return []
    scale = limit_s * limit.latency.shown_scale
    low, middle, high = (
        [float(f"{point.used[limit.name][place] * scale:.5g}") for point in points] for place in range(3)
    )
    rates = [float(f"{point.target_qps:.6g}") for point in points]
    shared = {"mode": "lines", "hoverinfo": "skip", "legendgroup": "forecast"}
    return [
        go.Scatter(
            x=[*rates, *rates[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=BAND,
            line={"width": 0},
            name="forecast, range over shuffles",
            **shared,
        ),
        go.Scatter(x=rates, y=middle, line={"color": QUIET, "width": 2}, name="forecast", **shared),
    ]


def _points_between(
    forecast: Sequence[ForecastPoint], limit: LatencyLimit, low_qps: float, high_qps: float
) -> list[ForecastPoint]:
    """Return the points between two rates that forecast `limit`, and the next one on either side."""
    known = [point for point in forecast if limit.name in point.used]
    inside = [index for index, point in enumerate(known) if low_qps <= point.target_qps <= high_qps]
    if not inside:
        return []
    return known[max(0, inside[0] - 1) : inside[-1] + 2]
