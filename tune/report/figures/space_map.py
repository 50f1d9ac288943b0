"""Draw throughput over the first one or two dimensions of the search space."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures.style import (
    HOVER_TPS,
    MANY_POINTS,
    TEXT,
    TPS,
    TPS_TITLE,
    Figure,
    empty_figure,
    make_figure,
    numbers,
    points,
    verdict_points,
)
from tune.spec.metrics import OUTPUT_TPS_PER_GPU
from tune.spec.space import Dimension


def space_map(study: StudyRecord, valid: pd.DataFrame) -> Figure:
    """Draw throughput over the search space; `valid` holds valid measurements."""
    title = "Where in the search space is throughput found?"
    axes = [name for name in _map_axes(study) if f"param.{name}" in valid]
    if not axes:
        return empty_figure("map", title, "Left out: no numeric setting was varied.")
    rows = valid.dropna(subset=[TPS, *(f"param.{name}" for name in axes)]).sort_values(TPS)
    if rows.empty:
        return empty_figure("map", title, "Left out: no valid measurement records its settings.")
    figure = go.Figure()
    x = axes[0]
    if len(axes) == 1:
        verdict_points(figure, rows, f"param.{x}", TPS, HOVER_TPS)
        figure.update_yaxes(title=TPS_TITLE)
        caption = f"One mark per trial, n = {len(rows):,}."
    else:
        _coloured_points(figure, rows, f"param.{x}", f"param.{axes[1]}")
        figure.update_yaxes(title=_axis_title(axes[1], study.space[axes[1]]))
        caption = (
            f"Colour shows {TPS_TITLE}; discs are feasible trials, crosses violate the SLO; "
            f"n = {len(rows):,}. Where trials coincide, the fastest lies on top."
        )
    figure.update_xaxes(title=_axis_title(x, study.space[x]))
    return make_figure("map", title, caption, figure)


def _map_axes(study: StudyRecord) -> list[str]:
    """Return up to two numeric dimensions: the split, then the rate, then the space's own order."""
    priority = {"split.prefill_workers": 0, "load.target_qps": 1}
    drawable = [n for n, d in study.space.items() if d.kind in ("int", "float") or _is_numeric(d)]
    return sorted(drawable, key=lambda name: priority.get(study.space[name].path, 2))[:2]


def _is_numeric(dimension: Dimension) -> bool:
    """Return True for an ordered dimension whose values are numbers."""
    return dimension.kind == "ordered" and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in dimension.values
    )


def _axis_title(name: str, dimension: Dimension) -> str:
    """Return the name of a setting with its unit, unless the name ends with it."""
    unit = formatting.unit(dimension)
    label = formatting.setting_name(name, dimension).replace("_", " ")
    return f"{label}, {unit}" if unit and not label.endswith(unit) else label


def _coloured_points(figure: go.Figure, rows: pd.DataFrame, x: str, y: str) -> None:
    """Add marks coloured by throughput, and a legend for their symbols."""
    many = len(rows) > MANY_POINTS
    for feasible, name, symbol in ((False, "SLO violated", "x"), (True, "feasible", "circle")):
        trials = rows[rows["feasible"] == feasible]
        if len(trials):
            marker = {
                "symbol": symbol,
                "size": 7 if many else 10,
                "color": numbers(trials[TPS]),
                "coloraxis": "coloraxis",
                "line": {"width": 0 if many else 0.5, "color": TEXT},
            }
            hover = f"%{{text}}<br>%{{marker.color:.4g}} {OUTPUT_TPS_PER_GPU.unit}<extra>{name}</extra>"
            figure.add_trace(
                points(trials, x, y, marker=marker, hovertemplate=hover, many=many, showlegend=False)
            )
            legend_marker = {"symbol": symbol, "size": 10, "color": TEXT}
            label = f"{name} (n = {len(trials):,})"
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=legend_marker, name=label))
    bar = {"title": {"text": OUTPUT_TPS_PER_GPU.unit}, "thickness": 14, "outlinewidth": 0}
    figure.update_layout(coloraxis={"colorscale": "Cividis", "colorbar": bar})
