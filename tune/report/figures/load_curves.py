"""Draw the load curve of each deployment whose capacity was searched: its probes, limits and rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.analysis.slo import figure_s
from tune.records.outcome import CapacityQps, Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import (
    PROBE_STATUSES,
    describe_capacity,
    describe_cost,
    is_capacity_search,
    probe_status,
)
from tune.report.figures.forecast_band import forecast_traces
from tune.report.figures.probe_marks import max_over_shuffles_s, probe_line, probe_marks
from tune.report.figures.rate_sweep import RATE_TITLE
from tune.report.figures.style import (
    FEASIBLE,
    TEXT,
    VIOLATED,
    Figure,
    FigureView,
    limit_line,
    plotly_spec,
    spans_decades,
    value_axis,
)
from tune.report.kind_label import kind_label
from tune.spec.load import Slo
from tune.spec.metrics import LatencyLimit

NAME = "rates"
TITLE = "At which rate does a deployment exceed its limits?"

PANEL_PX, AROUND_PX = 290, 130
"""Height of one limit's panel, and height of the legend and of the axis title around all panels."""

HEADROOM = 1.3
"""Ratio of the end of a latency axis to its highest value, to fit labels; squared on a log axis."""


def load_curves(study: StudyRecord, outcomes: Sequence[Outcome], ranks: Mapping[str, int]) -> list[Figure]:
    """Return a figure with one view per deployment, best first; none if no capacity was searched."""
    last = len(outcomes) + 1
    deployments = [outcome for outcome in outcomes if is_capacity_search(outcome)]
    if not deployments:
        return []
    deployments.sort(key=lambda outcome: (ranks.get(outcome.trial_id, last), outcome.number))
    views = tuple(_view(study, outcome, ranks.get(outcome.trial_id)) for outcome in deployments)
    caption = (
        "Load curve of one deployment. Grey line: the forecast of the search, fitted to its probes, in the "
        "deployment's own shuffle; grey band: its range over simulated shuffles. Each mark is a probe, "
        "numbered in the order run. Only full runs (large marks) verify a rate; a short run (small mark) "
        "sends a sample of the requests. Vertical bars: range of the figure over shuffles (orders of the "
        "dataset's lengths), where the probe was repeated. Blue area: rates up to the verified one. Orange "
        "area: rates from the lowest one above it that missed. Dotted line: estimated capacity, the rate "
        "that should hold in half of all shuffles. "
        f"Dashed line: the limit, one panel each. Deployments, best first, n = {len(views):,}."
    )
    return [Figure(NAME, TITLE, caption, None, views=views, choice="Deployment", wide=True)]


def _view(study: StudyRecord, outcome: Outcome, rank: int | None) -> FigureView:
    """Return the drawing of one deployment; `rank` is None if the trial is not ranked."""
    verified_qps = outcome.capacity_qps.low
    label = [
        *([f"#{rank}"] if rank is not None else []),
        f"trial {outcome.number}",
        *([kind] if (kind := kind_label(outcome, study)) else []),
        "no rate held" if verified_qps is None else f"{formatting.rate(verified_qps)} verified",
    ]
    configuration = formatting.describe_configuration(outcome, study.space)
    note = f"{configuration}: {describe_capacity(outcome)}. Cost: {describe_cost(outcome)}."
    panels = [limit for limit, _ in study.slo.limits] or [*study.slo.shown]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    low, high = _rates_shown(outcome)
    limits_s = dict(study.slo.limits)
    _mark_rates(figure, outcome, low, high, len(panels))
    for row, limit in enumerate(panels, start=1):
        for trace in forecast_traces(outcome, limit, limits_s[limit], (low, high)) if limits_s else []:
            figure.add_trace(trace.update(showlegend=row == 1), row=row, col=1)
        _panel(figure, row, outcome, study.slo, limit)
    figure.update_xaxes(range=[low, high])
    figure.update_xaxes(title=RATE_TITLE, row=len(panels), col=1)
    spec = plotly_spec(figure)
    spec["layout"]["legend"]["itemsizing"] = "trace"
    name = f"{NAME}-{outcome.number}"
    return FigureView(name, " · ".join(label), note, spec, AROUND_PX + PANEL_PX * len(panels))


def _rates_shown(outcome: Outcome) -> tuple[float, float]:
    """Return the ends of the axis: every marked rate, and room for a label on both sides."""
    rates = outcome.capacity_qps
    marked = [probe.offered_qps for probe in outcome.probes]
    marked += [qps for qps in (rates.low, rates.high, rates.estimate) if qps]
    low, high = min(marked), max(marked)
    room = max(0.55 * (high - low), 0.02 * high)
    return max(0.0, low - room), high + room


def _mark_rates(figure: go.Figure, outcome: Outcome, low: float, high: float, panels: int) -> None:
    """Colour the rates that held and that missed, and draw the capacity, in every panel."""
    rates = outcome.capacity_qps
    for row in range(1, panels + 1):
        number = "" if row == 1 else str(row)
        span = {"xref": f"x{number}", "yref": f"y{number} domain", "y0": 0, "y1": 1}
        area = {**span, "type": "rect", "layer": "below", "opacity": 0.1, "line": {"width": 0}}
        if rates.low is not None:
            figure.add_shape(**area, x0=low, x1=rates.low, fillcolor=FEASIBLE)
        if rates.high is not None:
            figure.add_shape(**area, x0=rates.high, x1=high, fillcolor=VIOLATED)
        if rates.estimate:
            line = {"color": TEXT, "width": 1.5, "dash": "dot"}
            figure.add_shape(**span, type="line", x0=rates.estimate, x1=rates.estimate, line=line)
    _label_rates(figure, rates, (low + high) / 2)


def _label_rates(figure: go.Figure, rates: CapacityQps, middle_qps: float) -> None:
    """Label the verified and the missed rate at the top of the first panel, the capacity at its bottom."""
    label = {"xref": "x", "yref": "y domain", "showarrow": False}
    top = {**label, "y": 1, "yanchor": "top"}
    if rates.low is not None:
        text, font = f"{rates.low:.4g} verified", {"color": FEASIBLE, "size": 13}
        figure.add_annotation(**top, x=rates.low, text=text, font=font, xanchor="right")
    if rates.high is not None:
        text, font = f"{rates.high:.4g} missed", {"color": VIOLATED, "size": 13}
        figure.add_annotation(**top, x=rates.high, text=text, font=font, xanchor="left")
    if rates.estimate:
        text = f"estimated capacity {rates.estimate:.4g}"
        side = "left" if rates.estimate < middle_qps else "right"
        figure.add_annotation(
            **label, x=rates.estimate, y=0, yanchor="bottom", text=text, font={"size": 12}, xanchor=side
        )


def _panel(figure: go.Figure, row: int, outcome: Outcome, slo: Slo, limit: LatencyLimit) -> None:
    """Draw the figure of `limit` of every probe that measured it, and the limit, in panel `row`."""
    scale, unit = limit.latency.shown_scale, limit.latency.shown_unit
    limit_s = dict(slo.limits).get(limit)
    measured = {
        index: latency_s
        for index, probe in enumerate(outcome.probes)
        if (latency_s := figure_s(limit, probe.statistics_of(limit.latency))) is not None
    }
    shown = pd.Series([s * scale for s in [*measured.values(), *([limit_s] if limit_s else [])]], dtype=float)
    number = "" if row == 1 else str(row)
    for full in (False, True):
        figure.add_trace(probe_line(outcome, full, limit), row=row, col=1)
        for status in PROBE_STATUSES:
            indices = [
                index
                for index in measured
                if (outcome.probes[index].full, probe_status(outcome.probes[index])) == (full, status)
            ]
            if indices:
                trace = probe_marks(outcome, indices, slo, limit)
                figure.add_trace(trace.update(showlegend=row == 1), row=row, col=1)
    if shown.empty:
        return
    top = max(shown.max(), *(max_over_shuffles_s(p, limit) * scale for p in outcome.probes))
    ends = [0, HEADROOM * top]
    if spans_decades(shown):
        ends = [math.log10(shown.min() / HEADROOM**2), math.log10(top * HEADROOM**2)]
    figure.update_yaxes(value_axis(shown, f"{limit.label}, {unit}"), range=ends, row=row, col=1)
    if limit_s is not None:
        value = limit_s * scale
        limit_line(figure, f"y{number}", value, f"limit {value:g} {unit}", spans_decades(shown))
