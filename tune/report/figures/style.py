"""What every figure shares: its question, its marks, its axes and the line of a limit.

Colours are names of the page's style variables, resolved where the page is shown, so that one figure serves
the light scheme, the dark one and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

MANY_POINTS = 2000
"""Above it points are drawn by WebGL: SVG takes seconds and stays slow to move."""

LOG_SPAN = 8.0
"""A latency axis that spans more than this ratio is logarithmic; our choice."""

TEXT = "var(--text)"
FEASIBLE = "var(--feasible)"
BROKEN = "var(--broken)"
LIMIT = "var(--limit)"
QUIET = "var(--quiet)"


@dataclass(frozen=True)
class FigureView:
    """One of several drawings to choose among: its label in the list, what it says, plotly's `spec`."""

    name: str
    label: str
    note: str
    spec: dict[str, Any]
    height_px: int


@dataclass(frozen=True)
class Figure:
    """One question and its answer: a plotly `spec`, or `views`, or neither and the reason in `caption`."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any] | None
    height_px: int = 420
    views: tuple[FigureView, ...] = ()


def make_figure(name: str, title: str, caption: str, drawn: go.Figure, height_px: int = 420) -> Figure:
    """Take the drawn traces and layout; the page sets size, fonts and colours."""
    return Figure(name, title, caption, plotly_spec(drawn), height_px)


def plotly_spec(drawn: go.Figure) -> dict[str, Any]:
    """Plotly's spec of the drawn traces, with the margins, legend and axes of every figure."""
    drawn.update_layout(template="none", margin={"l": 64, "r": 24, "t": 28, "b": 56}, hovermode="closest")
    backend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    drawn.update_layout(legend={**backend, "itemsizing": "constant"})
    drawn.update_xaxes(automargin=True, zeroline=False, title_standoff=8)
    drawn.update_yaxes(automargin=True, zeroline=False, title_standoff=8)
    spec: dict[str, Any] = drawn.to_plotly_json()
    return spec


def empty_figure(name: str, title: str, reason: str) -> Figure:
    return Figure(name, title, reason, None)


def numbers(column: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A column as float32 (seven digits, half the page), NaN where absent; shape (n,)."""
    return column.to_numpy(dtype=np.float32, na_value=np.nan)


def points(rows: pd.DataFrame, x: str, y: str, **style: Any) -> go.Scatter | go.Scattergl:
    """Markers of `rows`; each carries its trial number, from which the page writes its hover text.

    `style` are plotly's names; `many` among them asks for WebGL.
    """
    kind = go.Scattergl if style.pop("many") else go.Scatter
    backends = {"x": numbers(rows[x]), "y": numbers(rows[y])}
    return kind(**backends, mode="markers", customdata=rows["number"].to_numpy(np.int32), **style)


def verdict_points(drawn: go.Figure, rows: pd.DataFrame, x: str, y: str, hover: str) -> None:
    """Feasible trials as blue discs, those that broke the SLO as orange crosses, the baseline ringed."""
    many = len(rows) > MANY_POINTS
    size = 5 if many else 8
    cross = {"symbol": "x-thin", "size": size, "line": {"width": 1.6, "color": BROKEN}}
    disc = {"symbol": "circle", "size": size, "color": FEASIBLE, "opacity": 0.85}
    ring = {"symbol": "circle-open", "size": 15, "color": TEXT, "line": {"width": 2}}
    feasible = rows["feasible"]
    marks = (("SLO broken", rows[~feasible], cross), ("feasible", rows[feasible], disc))
    for name, some, marker in marks:
        if len(some):
            style = {"marker": marker, "hovertemplate": f"%{{text}}<br>{hover}<extra>{name}</extra>"}
            drawn.add_trace(points(some, x, y, name=f"{name} (n = {len(some):,})", many=many, **style))
    start = rows[rows["baseline"]]
    if len(start):
        drawn.add_trace(points(start, x, y, name="baseline", marker=ring, hoverinfo="skip", many=many))


def spans_decades(column: pd.Series[Any]) -> bool:
    """Whether an axis over these values reads better on a log scale: all positive, and a wide ratio."""
    low, high = column.min(), column.max()
    return bool(low > 0 and high / low > LOG_SPAN)


def value_axis(column: pd.Series[Any], title: str) -> dict[str, Any]:
    """Title, type and ticks of a latency axis; a log one is ticked at 1, 2 and 5 of every decade."""
    if not spans_decades(column):
        return {"title": title, "type": "linear"}
    low, high = math.floor(math.log10(column.min())), math.ceil(math.log10(column.max()))
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    texts = [f"{tick:,.10g}" for tick in ticks]
    return {"title": f"{title} (log scale)", "type": "log", "tickvals": ticks, "ticktext": texts}


def limit_line(drawn: go.Figure, axis: str, value: float, text: str, log: bool = False) -> None:
    """A dashed line at `value` of an axis such as "x" or "y2", and its label.

    On a log axis plotly places a shape by its value but an annotation by the value's log10.
    Source: plotly.js reference, layout.shapes and layout.annotations.
    """
    at = math.log10(value) if log else value
    line = {"type": "line", "line": {"color": LIMIT, "width": 1.5, "dash": "dash"}}
    label = {"text": text, "showarrow": False, "font": {"color": LIMIT, "size": 12}}
    number = axis[1:]
    if axis.startswith("x"):
        drawn.add_shape(**line, xref=axis, yref="paper", x0=value, x1=value, y0=0, y1=1)
        drawn.add_annotation(
            **label, xref=axis, yref="paper", x=at, y=0, xanchor="left", yanchor="bottom", xshift=4
        )
    else:
        across = f"x{number} domain"
        drawn.add_shape(**line, xref=across, yref=axis, x0=0, x1=1, y0=value, y1=value)
        drawn.add_annotation(**label, xref=across, yref=axis, x=1, y=at, xanchor="right", yanchor="bottom")
