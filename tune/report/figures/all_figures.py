"""The figures of a study, one a question, drawn from the frame of its outcomes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.records.study_record import StudyRecord
from tune.report import formatting, further_limits
from tune.report.figures.latency_stages import stages
from tune.report.figures.style import (
    FEASIBLE,
    MANY_POINTS,
    TEXT,
    Figure,
    empty_figure,
    limit_line,
    make_figure,
    numbers,
    points,
    spans_decades,
    value_axis,
    verdict_points,
)
from tune.spec.space import Dimension

TPS = "output_tps_per_gpu"
TPS_TITLE = "output tokens/s per GPU"
QPS_TITLE = "target rate, queries/s"
HOVER_TPS = "%{y:.4g} tokens/s/GPU"

LATENCIES = {
    "ttft": ("p99 TTFT", "ttft_p99_s", "s", "time to first token"),
    "tpot": ("p99 TPOT", "tpot_p99_ms", "ms", "time per output token"),
}
"""Name on the page, column, unit and what the letters mean."""


def study_figures(study: StudyRecord, rows: pd.DataFrame) -> list[Figure]:
    """Every figure of the page, in order; `rows` is the frame of all trials with its report columns."""
    good = rows[rows["verdict"].isin(["feasible", "slo_broken"])].dropna(subset=[TPS])
    if good.empty:
        return [
            empty_figure("none", "Figures", "No trial has a valid measurement, so there is nothing to draw.")
        ]
    drawn = [_trade_off(study, good, "ttft"), _trade_off(study, good, "tpot")]
    drawn += further_limits.trade_off_figures(study.slo, good)
    if is_load_curve(study):
        drawn.append(_load_curve(study, good))
    drawn += [_history(study, rows, good)]
    if not is_load_curve(study):
        drawn.append(_map(study, good))
    return [*drawn, stages(good)]


def is_load_curve(study: StudyRecord) -> bool:
    """Whether the request rate is all that the study varies."""
    return [d.path for d in study.space.values()] == ["load.target_qps"]


def limit_of(study: StudyRecord, key: str) -> float | None:
    """A latency's limit in the unit of its axis; None where it is lifted."""
    if key == "ttft":
        return study.slo.ttft_p99_s
    return None if study.slo.tpot_p99_s is None else study.slo.tpot_p99_s * 1e3


def _trade_off(study: StudyRecord, good: pd.DataFrame, key: str) -> Figure:
    name, column, unit, meaning = LATENCIES[key]
    title = f"What does throughput cost in {name}?"
    limit = limit_of(study, key)
    rows = good.dropna(subset=[TPS, column])
    if limit is None:
        return empty_figure(key, title, f"Left out: the study sets no limit on {name}.")
    if rows.empty:
        return empty_figure(key, title, f"Left out: no valid measurement has a {name}.")
    drawn = go.Figure()
    verdict_points(drawn, rows, column, TPS, f"{HOVER_TPS}<br>{name} %{{x:.3g}} {unit}")
    drawn.update_xaxes(value_axis(rows[column], f"{name}, {unit}"))
    drawn.update_yaxes(title=TPS_TITLE)
    limit_line(drawn, "x", limit, f"limit {limit:g} {unit}", spans_decades(rows[column]))
    within = int((rows[column] <= limit).sum())
    caption = (
        f"Each mark is one trial, n = {len(rows):,}; {within:,} lie within the limit of {limit:g} {unit} "
        f"({meaning}, 99th percentile over requests). Up and left is better."
    )
    return make_figure(key, title, caption, drawn)


def _history(study: StudyRecord, rows: pd.DataFrame, good: pd.DataFrame) -> Figure:
    title = "How did the search proceed?"
    if len(rows) < 2:
        return empty_figure("history", title, "Left out: a single trial has no history.")
    best = good[good["feasible"]].sort_values("number")
    drawn = go.Figure()
    verdict_points(drawn, good, "number", TPS, HOVER_TPS)
    if len(best):
        steps = best.assign(running=best[TPS].cummax())
        steps = steps[steps["running"] > steps["running"].shift(fill_value=0.0)]
        x = [*steps["number"].tolist(), int(rows["number"].max())]
        y = [*steps["running"].tolist(), float(steps["running"].iloc[-1])]
        line = {"shape": "hv", "width": 2, "color": TEXT}
        kind = go.Scattergl if len(good) > MANY_POINTS else go.Scatter
        drawn.add_trace(
            kind(x=x, y=y, mode="lines", line=line, name="best feasible so far", hoverinfo="skip")
        )
    start = good[good["baseline"] & good["feasible"]]
    if len(start):
        level = float(start[TPS].iloc[0])
        limit_line(drawn, "y", level, f"baseline {formatting.format_figure(level, 4)}")
    drawn.update_xaxes(title="trial number")
    drawn.update_yaxes(title=TPS_TITLE)
    missing = len(rows) - len(good)
    without = f"; {formatting.plural(missing, 'more trial')} without a valid measurement" if missing else ""
    return make_figure(
        "history", title, f"Trials in the order proposed, n = {len(good):,} drawn{without}.", drawn
    )


def _map(study: StudyRecord, good: pd.DataFrame) -> Figure:
    title = "Where in the space is throughput found?"
    axes = [name for name in _map_axes(study) if f"param.{name}" in good]
    if not axes:
        return empty_figure("map", title, "Left out: nothing was varied.")
    rows = good.dropna(subset=[TPS, *(f"param.{name}" for name in axes)]).sort_values(TPS)
    if rows.empty:
        return empty_figure("map", title, "Left out: no valid measurement names its place in the space.")
    drawn = go.Figure()
    x = axes[0]
    if len(axes) == 1:
        verdict_points(drawn, rows, f"param.{x}", TPS, HOVER_TPS)
        drawn.update_yaxes(title=TPS_TITLE)
        caption = f"One mark a trial, n = {len(rows):,}."
    else:
        _coloured(drawn, rows, f"param.{x}", f"param.{axes[1]}")
        drawn.update_yaxes(title=_axis_title(axes[1], study.space[axes[1]]))
        caption = (
            f"Colour is {TPS_TITLE}; discs are feasible, crosses broke the SLO; n = {len(rows):,}. "
            "Where trials share a place, the fastest lies on top."
        )
    drawn.update_xaxes(title=_axis_title(x, study.space[x]))
    return make_figure("map", title, caption, drawn)


def _map_axes(study: StudyRecord) -> list[str]:
    """The split, then the rate, then the space's own order; two at most."""
    first = {"split.prefill_workers": 0, "load.target_qps": 1}
    drawable = [n for n, d in study.space.items() if d.kind in ("int", "float") or _numeric(d)]
    return sorted(drawable, key=lambda name: first.get(study.space[name].path, 2))[:2]


def _numeric(dimension: Dimension) -> bool:
    return dimension.kind == "ordered" and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in dimension.values
    )


def _axis_title(name: str, dimension: Dimension) -> str:
    unit = formatting.unit(dimension)
    label = formatting.setting_name(name, dimension).replace("_", " ")
    return f"{label}, {unit}" if unit and not label.endswith(unit) else label


def _coloured(drawn: go.Figure, rows: pd.DataFrame, x: str, y: str) -> None:
    many = len(rows) > MANY_POINTS
    for feasible, name, symbol in ((False, "SLO broken", "x"), (True, "feasible", "circle")):
        some = rows[rows["feasible"] == feasible]
        if len(some):
            marker = {
                "symbol": symbol,
                "size": 7 if many else 10,
                "color": numbers(some[TPS]),
                "coloraxis": "coloraxis",
                "line": {"width": 0 if many else 0.5, "color": TEXT},
            }
            hover = f"%{{text}}<br>%{{marker.color:.4g}} tokens/s/GPU<extra>{name}</extra>"
            drawn.add_trace(
                points(some, x, y, marker=marker, hovertemplate=hover, many=many, showlegend=False)
            )
            key = {"symbol": symbol, "size": 10, "color": TEXT}
            drawn.add_trace(
                go.Scatter(x=[None], y=[None], mode="markers", marker=key, name=f"{name} (n = {len(some):,})")
            )
    bar = {"title": {"text": "tokens/s/GPU"}, "thickness": 14, "outlinewidth": 0}
    drawn.update_layout(coloraxis={"colorscale": "Cividis", "colorbar": bar})


def _load_curve(study: StudyRecord, good: pd.DataFrame) -> Figure:
    panels: list[tuple[str, str, str, float | None]] = [("Output throughput", TPS, TPS_TITLE, None)]
    for key, (name, column, unit, _) in LATENCIES.items():
        panels.append((name, column, f"{name}, {unit}", limit_of(study, key)))
    panels = [panel for panel in panels if good[panel[1]].notna().any()]
    drawn = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    rows = good.sort_values("target_qps")
    for number, (name, column, title, limit) in enumerate(panels, start=1):
        drawn.add_trace(
            go.Scatter(
                x=numbers(rows["target_qps"]),
                y=numbers(rows[column]),
                mode="lines",
                hoverinfo="skip",
                line={"color": FEASIBLE, "width": 1},
                showlegend=False,
            ),
            row=number,
            col=1,
        )
        part = go.Figure()
        verdict_points(part, rows, "target_qps", column, f"{name} %{{y:.4g}}<br>%{{x:.4g}} queries/s")
        for trace in part.data:
            drawn.add_trace(trace.update(showlegend=number == 1, legendgroup=trace.name), row=number, col=1)
        axis = "y" if number == 1 else f"y{number}"
        drawn.update_yaxes(value_axis(rows[column], title), row=number, col=1)
        if limit is not None:
            limit_line(drawn, axis, limit, f"limit {limit:g}", spans_decades(rows[column]))
    drawn.update_xaxes(title=QPS_TITLE, row=len(panels), col=1)
    caption = f"One trial a rate, n = {len(rows):,}; dashed lines are the limits."
    return make_figure(
        "load", "How do throughput and latency grow with the rate?", caption, drawn, 280 * len(panels)
    )
