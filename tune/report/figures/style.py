"""Define what every figure shares: its title and caption, its marks, its axes and the line of a limit.

Colours are names of the page's CSS variables, which the browser resolves. One figure therefore serves the
light scheme, the dark one and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report.trial_status import TRIAL_STATUS_WORDS, TrialStatus
from tune.spec.metrics import OUTPUT_TPS_PER_GPU, LatencyLimit

MAX_MARKS = 2000
"""Largest number of trials that a figure draws, the best ranked ones: more make the page slow to move."""

MANY_MARKS = 500
"""Number of trials above which their marks are small."""

LOG_SPAN = 8.0
"""Ratio of highest to lowest value above which a latency axis is logarithmic; chosen here."""

TEXT = "var(--text)"
FEASIBLE = "var(--feasible)"
VIOLATED = "var(--violated)"
LIMIT = "var(--limit)"
QUIET = "var(--quiet)"

TPS = OUTPUT_TPS_PER_GPU.name
TPS_TITLE = OUTPUT_TPS_PER_GPU.title
HOVER_TPS = f"%{{y:.4g}} {OUTPUT_TPS_PER_GPU.unit}"


@dataclass(frozen=True)
class FigureView:
    """Hold one of several drawings to choose from: its label in the list, its note, plotly's `spec`."""

    name: str
    label: str
    note: str
    spec: dict[str, Any]
    height_px: int


@dataclass(frozen=True)
class Figure:
    """Hold a figure: a plotly `spec`, or `views`, or neither and the reason in `caption`.

    `choice` names what a view is chosen by. A `wide` figure takes the whole width of the page.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any] | None
    height_px: int = 420
    views: tuple[FigureView, ...] = ()
    choice: str = ""
    wide: bool = False


def make_figure(name: str, title: str, caption: str, figure: go.Figure, height_px: int = 420) -> Figure:
    """Return a figure with the traces and layout of `figure`; the page sets size, fonts and colours."""
    return Figure(name, title, caption, plotly_spec(figure), height_px)


def plotly_spec(figure: go.Figure) -> dict[str, Any]:
    """Return plotly's spec of `figure` with the margins, legend and axes that all figures share."""
    figure.update_layout(template="none", margin={"l": 64, "r": 24, "t": 28, "b": 56}, hovermode="closest")
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    figure.update_layout(legend={**legend, "itemsizing": "constant"})
    figure.update_xaxes(automargin=True, zeroline=False, title_standoff=8)
    figure.update_yaxes(automargin=True, zeroline=False, title_standoff=8)
    spec: dict[str, Any] = figure.to_plotly_json()
    return spec


def empty_figure(name: str, title: str, reason: str) -> Figure:
    """Return a figure without a drawing, whose caption says why."""
    return Figure(name, title, reason, None)


def numbers(column: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a column as float32, shape (n,), NaN where absent; float32 halves the size of the page."""
    return column.to_numpy(dtype=np.float32, na_value=np.nan)


def points(rows: pd.DataFrame, x: str, y: str, **style: Any) -> go.Scatter:
    """Return markers of `rows`; each carries its trial number, from which the page writes its hover text.

    `style` holds plotly's names.
    """
    coordinates = {"x": numbers(rows[x]), "y": numbers(rows[y])}
    return go.Scatter(**coordinates, mode="markers", customdata=rows["number"].to_numpy(np.int32), **style)


def verdict_points(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, hover: str) -> None:
    """Add trials as blue discs, open where only some shuffles held, or orange crosses; ring two of them."""
    size = 5 if len(rows) > MANY_MARKS else 8
    cross = {"symbol": "x-thin", "size": size, "line": {"width": 1.6, "color": VIOLATED}}
    disc = {"symbol": "circle", "size": size, "color": FEASIBLE, "opacity": 0.85}
    circle = {"symbol": "circle-open", "size": size, "color": FEASIBLE, "line": {"width": 1.6}}
    marks: dict[TrialStatus, dict[str, Any]] = {
        "slo_violated": cross,
        "some_shuffles": circle,
        "feasible": disc,
    }
    for status, marker in marks.items():
        name, trials = TRIAL_STATUS_WORDS[status], rows[rows["trial_status"] == status]
        if len(trials):
            style = {"marker": marker, "hovertemplate": f"%{{text}}<br>{hover}<extra>{name}</extra>"}
            figure.add_trace(points(trials, x, y, name=f"{name} (n = {len(trials):,})", **style))
    for name, symbol, ring_px in (("baseline", "circle-open", 15), ("best", "star-diamond-open", 19)):
        trial = rows[rows[name]]
        if len(trial):
            ring = {"symbol": symbol, "size": ring_px, "color": TEXT, "line": {"width": 2}}
            figure.add_trace(points(trial, x, y, name=name, marker=ring, hoverinfo="skip"))


def spans_decades(column: pd.Series[Any]) -> bool:
    """Return True if an axis over these values is logarithmic: all are positive, and they span LOG_SPAN."""
    low, high = column.min(), column.max()
    return bool(low > 0 and high / low > LOG_SPAN)


def value_axis(column: pd.Series[Any], title: str) -> dict[str, Any]:
    """Return title, type and ticks of a latency axis; a log axis has ticks at 1, 2 and 5 of every decade."""
    if not spans_decades(column):
        return {"title": title, "type": "linear"}
    low, high = math.floor(math.log10(column.min())), math.ceil(math.log10(column.max()))
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    texts = [f"{tick:,.10g}" for tick in ticks]
    return {"title": f"{title} (log scale)", "type": "log", "tickvals": ticks, "ticktext": texts}


def column_of(limit: LatencyLimit) -> str:
    """Return the column of the frame that holds the figure of a limit in its shown unit."""
    return f"{limit.name}_{limit.latency.shown_unit}"


def limit_of(study: StudyRecord, limit: LatencyLimit) -> float | None:
    """Return the value of a limit in the unit of its axis, or None if it is lifted."""
    limit_s = dict(study.slo.limits).get(limit)
    return None if limit_s is None else limit_s * limit.latency.shown_scale


def limit_line(figure: go.Figure, axis: str, value: float, text: str, log: bool = False) -> None:
    """Add a dashed line at `value` of an axis such as "x" or "y2", and its label.

    On a log axis plotly places a shape by its value but an annotation by the value's log10.
    Source: plotly.js reference, layout.shapes and layout.annotations.
    """
    label_position = math.log10(value) if log else value
    line = {"type": "line", "line": {"color": LIMIT, "width": 1.5, "dash": "dash"}}
    label = {"text": text, "showarrow": False, "font": {"color": LIMIT, "size": 12}}
    number = axis[1:]
    if axis.startswith("x"):
        figure.add_shape(**line, xref=axis, yref="paper", x0=value, x1=value, y0=0, y1=1)
        figure.add_annotation(
            **label,
            xref=axis,
            yref="paper",
            x=label_position,
            y=0,
            xanchor="left",
            yanchor="bottom",
            xshift=4,
        )
    else:
        across = f"x{number} domain"
        figure.add_shape(**line, xref=across, yref=axis, x0=0, x1=1, y0=value, y1=value)
        figure.add_annotation(
            **label, xref=across, yref=axis, x=1, y=label_position, xanchor="right", yanchor="bottom"
        )
