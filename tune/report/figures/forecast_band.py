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

    The line is the forecast in the deployment's own shuffle. The band, with its median, is the range over
    further shuffles, at the rates where the search looked at several.
    """
    scale = limit_s * limit.latency.shown_scale
    points = [point for point in outcome.forecast if limit.name in point.used]
    own = _points_between([point for point in points if point.shuffles == 1], *ends_qps)
    several = _points_between([point for point in points if point.shuffles > 1], *ends_qps)
    shared = {"mode": "lines", "hoverinfo": "skip"}
    traces = []
    if len(several) > 1:
        rates, low, middle, high = _curves(several, limit, scale)
        band = {"x": [*rates, *rates[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": BAND}
        name = "forecast, range and median over shuffles"
        traces = [
            go.Scatter(**band, line={"width": 0}, name=name, legendgroup=name, **shared),
            go.Scatter(
                x=rates,
                y=middle,
                line={"color": QUIET, "width": 1.5, "dash": "dot"},
                name="forecast, median",
                legendgroup=name,
                **shared,
            ),
        ]
    if len(own) > 1:
        rates, _, middle, _ = _curves(own, limit, scale)
        line = {"color": QUIET, "width": 2}
        traces.append(go.Scatter(x=rates, y=middle, line=line, name="forecast, own shuffle", **shared))
    return traces


def _curves(
    points: Sequence[ForecastPoint], limit: LatencyLimit, scale: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return the rates of points, and the lowest, the median and the highest figure at each."""
    rates = [float(f"{point.target_qps:.6g}") for point in points]
    low, middle, high = (
        [float(f"{point.used[limit.name][place] * scale:.5g}") for point in points] for place in range(3)
    )
    return rates, low, middle, high


def _points_between(known: Sequence[ForecastPoint], low_qps: float, high_qps: float) -> list[ForecastPoint]:
    """Return the points between two rates, and the next one on either side."""
    inside = [index for index, point in enumerate(known) if low_qps <= point.target_qps <= high_qps]
    if not inside:
        return []
    return list(known[max(0, inside[0] - 1) : inside[-1] + 2])
