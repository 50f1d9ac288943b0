"""Draw the prior and the posterior interval of each simulator parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from tune.records.posterior_summary import Interval, ParameterPosterior
from tune.report.figures.style import FEASIBLE, QUIET, TEXT, Figure, empty_figure, make_figure
from tune.report.posterior_text import ParameterRow, format_factors, parameter_rows

NAME = "parameters"
TITLE = "Simulator parameters: prior and posterior"

PAGE = "var(--page)"

ROW_PX, AROUND_PX, LEFT_PX = 46, 110, 12
"""Height of a row; height of legend and axis together; left margin, small because there is no y axis."""

_TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_MIN_TICK_DISTANCE_FRAC = 0.12
"""Smallest distance of two ticks as a share of the axis: closer ones overlap on a phone."""


def posterior_figure(parameters: Sequence[ParameterPosterior]) -> Figure:
    """Draw every parameter as a factor on its calibrated value, with its prior and posterior interval."""
    rows = [row for row in parameter_rows(parameters) if row.prior.low > 0 and row.posterior.low > 0]
    if not rows:
        return empty_figure(NAME, TITLE, "Left out: no parameter has an interval of positive factors.")
    figure = go.Figure()
    heights = list(range(len(rows), 0, -1))
    figure.add_trace(
        _intervals("prior (before any trial)", [row.prior for row in rows], heights, rows, QUIET)
    )
    for narrowings, fill, label in (
        (("pinned down", "narrowed"), FEASIBLE, "posterior (after all trials so far)"),
        (("unchanged",), PAGE, "posterior, hardly narrower than the prior"),
    ):
        drawn = [(row, y) for row, y in zip(rows, heights, strict=True) if row.narrowing in narrowings]
        if drawn:
            parameters_drawn, lowered = [row for row, _ in drawn], [y - 0.16 for _, y in drawn]
            intervals = [row.posterior for row in parameters_drawn]
            trace = _intervals(label, intervals, lowered, parameters_drawn, FEASIBLE)
            figure.add_trace(trace.update(marker={"symbol": "circle", "size": 10, "color": fill}))
    for row, y in zip(rows, heights, strict=True):
        _label(figure, row, y)
    _axes(figure, rows)
    missing = len(parameters) - len(rows)
    caption = (
        "Each parameter is a factor on its calibrated value: 1 is as calibrated, and more than 1 is slower "
        "where the parameter is a time. Marks are medians, lines 90 % intervals. Parameters that the trials "
        f"narrowed most come first; n = {len(rows):,} parameters"
        + (f", {missing:,} without an interval of positive factors left out." if missing else ".")
    )
    result = make_figure(NAME, TITLE, caption, figure, AROUND_PX + ROW_PX * len(rows))
    assert result.spec is not None
    result.spec["layout"]["margin"]["l"] = LEFT_PX
    return result


def _intervals(
    name: str,
    intervals: Sequence[Interval],
    heights: Sequence[float],
    rows: Sequence[ParameterRow],
    colour: str,
) -> go.Scatter:
    """Return one trace with a median and an interval for each of `rows`."""
    return go.Scatter(
        x=[interval.median for interval in intervals],
        y=list(heights),
        mode="markers",
        name=name,
        marker={"symbol": "line-ns", "size": 10, "color": colour, "line": {"width": 2, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [interval.high - interval.median for interval in intervals],
            "arrayminus": [interval.median - interval.low for interval in intervals],
            "color": colour,
            "thickness": 2 if colour == QUIET else 4,
            "width": 0,
        },
        hovertext=[_hover(row) for row in rows],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(row: ParameterRow) -> str:
    """Return the hover label of a parameter."""
    lines = [
        f"<b>{row.label}</b>",
        f"prior {format_factors(row.prior)}",
        f"posterior {format_factors(row.posterior)}",
        f"width of the posterior: {row.width_frac * 100:.0f} % of the prior (log scale), {row.narrowing}",
    ]
    return "<br>".join(lines)


def _label(figure: go.Figure, row: ParameterRow, y: float) -> None:
    """Write the name at the left and the posterior at the right, above the intervals of the row."""
    label = {"xref": "paper", "yref": "y", "y": y + 0.17, "yanchor": "bottom", "showarrow": False}
    figure.add_annotation(**label, x=0, xanchor="left", text=row.label, font={"size": 13, "color": TEXT})
    figure.add_annotation(
        **label, x=1, xanchor="right", text=format_factors(row.posterior), font={"size": 12, "color": QUIET}
    )


def _axes(figure: go.Figure, rows: Sequence[ParameterRow]) -> None:
    """Set a log axis that holds every interval and 1, its ticks, and a dotted line at 1."""
    low = min(1.0, *(min(row.prior.low, row.posterior.low) for row in rows))
    high = max(1.0, *(max(row.prior.high, row.posterior.high) for row in rows))
    room = 0.04 * math.log10(high / low) if high > low else 0.05
    ends = [math.log10(low) - room, math.log10(high) + room]
    ticks: list[float] = []
    for tick in sorted(_TICKS, key=lambda value: (value != 1.0, abs(math.log10(value)))):
        position, distance = math.log10(tick), _MIN_TICK_DISTANCE_FRAC * (ends[1] - ends[0])
        is_free = all(abs(position - math.log10(other)) >= distance for other in ticks)
        if ends[0] <= position <= ends[1] and is_free:
            ticks.append(tick)
    figure.update_xaxes(
        type="log",
        range=ends,
        tickvals=sorted(ticks),
        ticktext=[f"×{tick:g}" for tick in sorted(ticks)],
        tickangle=0,
        title="factor on the calibrated value (log scale)",
    )
    figure.update_yaxes(range=[0.4, len(rows) + 0.75], visible=False)
    line = {"color": TEXT, "width": 1.5, "dash": "dot"}
    figure.add_shape(type="line", xref="x", yref="paper", x0=1, x1=1, y0=0, y1=1, line=line, layer="below")
