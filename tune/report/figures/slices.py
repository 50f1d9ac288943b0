"""Draw throughput over each dimension of the search space, one view a dimension."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures.style import (
    HOVER_TPS,
    TPS,
    TPS_TITLE,
    Figure,
    FigureView,
    empty_figure,
    plotly_spec,
    verdict_points,
)
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value

NAME = "slices"
TITLE = "How does throughput depend on each setting?"

HEIGHT_PX = 400
PLACE = "slice_place"


def slices(study: StudyRecord, valid: pd.DataFrame, importance: Mapping[str, float]) -> Figure:
    """Draw throughput over each dimension that varies, the most important first.

    `valid` holds valid measurements, `importance` the importance of dimensions by name.
    """
    columns = {name: f"param.{name}" for name in study.space if f"param.{name}" in valid}
    varied = [name for name, column in columns.items() if valid[column].astype("str").nunique() > 1]
    if not varied:
        return empty_figure(NAME, TITLE, "Left out: no setting took two values in valid measurements.")
    varied.sort(key=lambda name: -importance.get(name, 0.0))
    views = tuple(_view(study, valid, name, importance.get(name)) for name in varied)
    caption = (
        "Each mark is one trial; the other settings differ from mark to mark. The highest feasible mark over "
        "a value is the best that was found with it."
    )
    return Figure(NAME, TITLE, caption, None, views=views, choice="Setting")


def _view(study: StudyRecord, valid: pd.DataFrame, name: str, share: float | None) -> FigureView:
    """Return the drawing over one dimension."""
    dimension, column = study.space[name], f"param.{name}"
    rows = valid.dropna(subset=[TPS, column])
    figure = go.Figure()
    if isinstance(dimension, IntDimension | FloatDimension):
        rows = rows.assign(**{PLACE: rows[column].astype("float64")})
    else:
        shown = _shown_values(dimension, rows[column].tolist())
        rows = rows.assign(**{PLACE: [shown.index(formatting.setting(v)) for v in rows[column]]})
        figure.update_xaxes(tickvals=list(range(len(shown))), ticktext=shown)
    verdict_points(figure, rows, PLACE, TPS, HOVER_TPS)
    figure.update_xaxes(title=_axis_title(name, dimension, study.engine))
    figure.update_yaxes(title=TPS_TITLE)
    label = formatting.setting_name(name, dimension)
    note = (
        f"{label}: n = {len(rows):,}" + ("" if share is None else f", importance {share * 100:.0f} %") + "."
    )
    return FigureView(f"{NAME}-{name}", label, note, plotly_spec(figure), HEIGHT_PX)


def _shown_values(dimension: Dimension, values: list[Value]) -> list[str]:
    """Return the texts of a dimension's values in their order, then of values that it no longer has."""
    own = () if isinstance(dimension, IntDimension | FloatDimension) else dimension.values
    return list(dict.fromkeys([*map(formatting.setting, own), *map(formatting.setting, values)]))


def _axis_title(name: str, dimension: Dimension, engine: str) -> str:
    """Return the name of a setting with its unit, unless the name ends with it."""
    unit = formatting.unit(dimension, engine)
    label = formatting.setting_name(name, dimension).replace("_", " ")
    return f"{label}, {unit}" if unit and not label.endswith(unit) else label
