"""The figure of what a search believes of the rack: each parameter's interval before any trial and now."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from tune.records.posterior_summary import Interval, ParameterPosterior
from tune.report.figures.style import FEASIBLE, QUIET, TEXT, Figure, empty_figure, make_figure
from tune.report.posterior_text import ParameterRow, factors, parameter_rows

NAME = "parameters"
TITLE = "What the search believes of this rack"

PAGE = "var(--page)"

ROW_PX, AROUND_PX, LEFT_PX = 46, 110, 12
"""Height of a row, and of legend and axis around all; the margin at the left, where names need no axis."""

_TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_LEAST_APART_FRAC = 0.12
"""Of the axis: nearer ticks would overlap on a telephone."""


def posterior_figure(parameters: Sequence[ParameterPosterior]) -> Figure:
    """Every parameter as a factor on the calibration, its interval before and now."""
    shown = [row for row in parameter_rows(parameters) if row.before.low > 0 and row.now.low > 0]
    if not shown:
        return empty_figure(NAME, TITLE, "Left out: no parameter has an interval of positive factors.")
    drawn = go.Figure()
    backends = list(range(len(shown), 0, -1))
    drawn.add_trace(_intervals("before any trial", [row.before for row in shown], backends, shown, QUIET))
    for names, fill, label in (
        (("pinned down", "narrowed"), FEASIBLE, "now"),
        (("untouched",), PAGE, "now, hardly narrower"),
    ):
        which = [(row, y) for row, y in zip(shown, backends, strict=True) if row.told in names]
        if which:
            some, at = [row for row, _ in which], [y - 0.16 for _, y in which]
            trace = _intervals(label, [row.now for row in some], at, some, FEASIBLE)
            drawn.add_trace(trace.update(marker={"symbol": "circle", "size": 10, "color": fill}))
    for row, y in zip(shown, backends, strict=True):
        _name(drawn, row, y)
    _axes(drawn, shown)
    missing = len(parameters) - len(shown)
    caption = (
        "Factors on what the calibration says: 1 is as calibrated; of a time, more is slower. Marks are "
        "medians, lines 90 % intervals. Those that the trials told most of come first; "
        f"n = {len(shown):,} parameters"
        + (f", {missing:,} without an interval of positive factors left out." if missing else ".")
    )
    framed = make_figure(NAME, TITLE, caption, drawn, AROUND_PX + ROW_PX * len(shown))
    assert framed.spec is not None
    framed.spec["layout"]["margin"]["l"] = LEFT_PX
    return framed


def _intervals(
    name: str, of: Sequence[Interval], at: Sequence[float], shown: Sequence[ParameterRow], colour: str
) -> go.Scatter:
    """One trace: a median and its interval for each row."""
    return go.Scatter(
        x=[one.median for one in of],
        y=list(at),
        mode="markers",
        name=name,
        marker={"symbol": "line-ns", "size": 10, "color": colour, "line": {"width": 2, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.median for one in of],
            "arrayminus": [one.median - one.low for one in of],
            "color": colour,
            "thickness": 2 if colour == QUIET else 4,
            "width": 0,
        },
        hovertext=[_hover(row) for row in shown],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(row: ParameterRow) -> str:
    lines = [
        f"<b>{row.label}</b>",
        f"before any trial {factors(row.before)}",
        f"now {factors(row.now)}",
        f"the interval is {row.width_frac * 100:.0f} % as wide as before (on the log scale): {row.told}",
    ]
    return "<br>".join(lines)


def _name(drawn: go.Figure, row: ParameterRow, y: float) -> None:
    """The name at the left and the figure at the right, above the row's intervals."""
    label = {"xref": "paper", "yref": "y", "y": y + 0.17, "yanchor": "bottom", "showarrow": False}
    drawn.add_annotation(**label, x=0, xanchor="left", text=row.label, font={"size": 13, "color": TEXT})
    drawn.add_annotation(
        **label, x=1, xanchor="right", text=factors(row.now), font={"size": 12, "color": QUIET}
    )


def _axes(drawn: go.Figure, shown: Sequence[ParameterRow]) -> None:
    low = min(1.0, *(min(row.before.low, row.now.low) for row in shown))
    high = max(1.0, *(max(row.before.high, row.now.high) for row in shown))
    room = 0.04 * math.log10(high / low) if high > low else 0.05
    ends = [math.log10(low) - room, math.log10(high) + room]
    ticks: list[float] = []
    for tick in sorted(_TICKS, key=lambda value: (value != 1.0, abs(math.log10(value)))):
        at = math.log10(tick)
        apart = all(abs(at - math.log10(t)) >= _LEAST_APART_FRAC * (ends[1] - ends[0]) for t in ticks)
        if ends[0] <= at <= ends[1] and apart:
            ticks.append(tick)
    drawn.update_xaxes(
        type="log",
        range=ends,
        tickvals=sorted(ticks),
        ticktext=[f"×{tick:g}" for tick in sorted(ticks)],
        tickangle=0,
        title="factor on the calibration (log scale)",
    )
    drawn.update_yaxes(range=[0.4, len(shown) + 0.75], visible=False)
    line = {"color": TEXT, "width": 1.5, "dash": "dot"}
    drawn.add_shape(type="line", xref="x", yref="paper", x0=1, x1=1, y0=0, y1=1, line=line, layer="below")
