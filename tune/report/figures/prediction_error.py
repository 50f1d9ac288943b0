"""Draw the capacity that a search predicted for each trial beside the measured one."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.report import formatting
from tune.report.figures.style import FEASIBLE, QUIET, TEXT, VIOLATED, Figure, empty_figure, make_figure
from tune.report.prediction_pairs import PredictionPair, describe_accuracy
from tune.report.trial_status import TRIAL_STATUS_WORDS, UNMEASURED, TrialStatus

NAME = "predicted"
TITLE = "Prediction against measurement"

MARKS: dict[TrialStatus, tuple[str, str]] = {
    "feasible": ("circle", FEASIBLE),
    "some_shuffles": ("circle-open", FEASIBLE),
    "stopped_early": ("triangle-down-open", VIOLATED),
    "slo_violated": ("x-thin", VIOLATED),
    "invalid": ("diamond-open", QUIET),
    "infeasible": ("square-x-open", VIOLATED),
    "failed": ("hourglass-open", QUIET),
}
"""Symbol and colour by status; the last two are not measured and stand at the bottom of the upper panel."""

HEIGHT_PX = 620
FEW_TRIALS = 40
"""Number of trials up to which marks of trials that are not feasible are labelled."""

TICKS = 12
"""Approximate number of ticks on the axis of trial numbers."""


def prediction_figure(pairs: Sequence[PredictionPair]) -> Figure:
    """Draw predicted and measured capacity of each trial; below, their difference in percent."""
    predicted = [pair for pair in pairs if pair.predicted_qps is not None]
    if not predicted:
        return empty_figure(NAME, TITLE, "Left out: no trial on record has a prediction.")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.6, 0.4])
    low, high = _ends(pairs)
    floor = low - 0.06 * (high - low)
    figure.add_trace(_predictions(predicted), row=1, col=1)
    figure.add_trace(_bands(predicted), row=2, col=1)
    _best_so_far(figure, pairs)
    for status in MARKS:
        group = [pair for pair in pairs if pair.status == status]
        if group:
            figure.add_trace(_marks(group, status, floor), row=1, col=1)
            figure.add_trace(_differences(group, status), row=2, col=1)
    if len(pairs) <= FEW_TRIALS:
        _label_marks(figure, pairs, floor)
    figure.update_yaxes(title="capacity, queries/s", range=[low - 0.12 * (high - low), high], row=1, col=1)
    figure.update_yaxes(title="difference, %", row=2, col=1)
    last = max(pair.outcome.number for pair in pairs)
    figure.update_xaxes(range=[-0.6, last + 0.6], tick0=0, dtick=max(1, round(last / TICKS)))
    figure.update_xaxes(title="trial number", row=2, col=1)
    line = {"color": TEXT, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", xref="x2 domain", yref="y2", x0=0, x1=1, y0=0, y1=0, line=line)
    return make_figure(NAME, TITLE, _caption(pairs, predicted), figure, HEIGHT_PX)


def _caption(pairs: Sequence[PredictionPair], predicted: Sequence[PredictionPair]) -> str:
    """Return the caption: what is drawn, how accurate predictions were, and how many trials there are."""
    without = sum(pair.status not in UNMEASURED and pair.measured_qps is None for pair in pairs)
    more = f", {without:,} without a measured capacity, drawn at the offered rate" if without else ""
    return (
        "Grey: the capacity that the search predicted when it proposed the trial, median and 90 % interval. "
        "Marks: the measured capacity, the rate that should hold in half of all shuffles (orders of the "
        "dataset's lengths); for a trial stopped early, the forecast at that moment. Marks at the bottom: "
        "not measured. Lower panel: difference of the measured capacity from the predicted median. "
        f"{describe_accuracy(pairs)} n = {formatting.plural(len(pairs), 'trial')}, {len(predicted):,} with a "
        f"prediction{more}."
    )


def _ends(pairs: Sequence[PredictionPair]) -> tuple[float, float]:
    """Return the lowest and highest capacity drawn, queries/s, with room for a mark above."""
    levels = [level for pair in pairs if (level := pair.level_qps) is not None]
    levels += [end for pair in pairs if (qps := pair.predicted_qps) for end in (qps.low, qps.high)]
    low, high = min(levels), max(levels)
    return low, high + 0.06 * (high - low or high or 1.0)


def _predictions(pairs: Sequence[PredictionPair]) -> go.Scatter:
    """Return the trace of the predicted capacities."""
    numbered = [(pair.outcome.number, qps) for pair in pairs if (qps := pair.predicted_qps)]
    return go.Scatter(
        x=[number for number, _ in numbered],
        y=[qps.median for _, qps in numbered],
        name="predicted: median and 90 % interval",
        hoverinfo="skip",
        **_bar([(qps.median, qps.low, qps.high) for _, qps in numbered]),
    )


def _bands(pairs: Sequence[PredictionPair]) -> go.Scatter:
    """Return the trace of the prediction intervals as relative errors (%), centred on the median."""
    numbered = [
        (pair.outcome.number, qps) for pair in pairs if (qps := pair.predicted_qps) and qps.median > 0
    ]
    percent = [
        (0.0, (qps.low / qps.median - 1) * 100, (qps.high / qps.median - 1) * 100) for _, qps in numbered
    ]
    return go.Scatter(
        x=[number for number, _ in numbered],
        y=[0.0] * len(numbered),
        showlegend=False,
        hoverinfo="skip",
        **_bar(percent),
    )


def _bar(intervals: Sequence[tuple[float, float, float]]) -> dict[str, object]:
    """Return the style of intervals (median, low, high): a broad pale bar with a dash at the median."""
    return {
        "mode": "markers",
        "opacity": 0.5,
        "marker": {"symbol": "line-ew", "size": 13, "line": {"width": 2.5, "color": TEXT}, "color": TEXT},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - middle for middle, _, high in intervals],
            "arrayminus": [middle - low for middle, low, _ in intervals],
            "color": QUIET,
            "thickness": 6,
            "width": 0,
        },
    }


def _best_so_far(figure: go.Figure, pairs: Sequence[PredictionPair]) -> None:
    """Add the highest capacity of the feasible trials so far as a stepped line."""
    best = 0.0
    x, y = [], []
    for pair in pairs:
        if pair.outcome.feasible and (pair.level_qps or 0.0) > best:
            best = pair.level_qps or 0.0
            x.append(pair.outcome.number)
            y.append(best)
    if x:
        x, y = [*x, max(pair.outcome.number for pair in pairs)], [*y, best]
        line = {"shape": "hv", "width": 2, "color": TEXT}
        figure.add_trace(
            go.Scatter(x=x, y=y, mode="lines", line=line, name="best so far", hoverinfo="skip"), row=1, col=1
        )


def _marks(pairs: Sequence[PredictionPair], status: TrialStatus, floor: float) -> go.Scatter:
    """Return the marks of trials of one status; those that are not measured stand at `floor`."""
    unmeasured = ", not measured" if status in UNMEASURED else ""
    return go.Scatter(
        x=[pair.outcome.number for pair in pairs],
        y=[floor if pair.level_qps is None else pair.level_qps for pair in pairs],
        name=f"{TRIAL_STATUS_WORDS[status]}{unmeasured} (n = {len(pairs):,})",
        **_mark_style(pairs, status),
    )


def _differences(pairs: Sequence[PredictionPair], status: TrialStatus) -> go.Scatter:
    """Return the marks of the lower panel: measured over predicted capacity, minus 1, in percent."""
    complete = [pair for pair in pairs if pair.error_frac is not None]
    return go.Scatter(
        x=[pair.outcome.number for pair in complete],
        y=[float(f"{(pair.error_frac or 0.0) * 100:.4g}") for pair in complete],
        showlegend=False,
        **_mark_style(complete, status),
    )


def _mark_style(pairs: Sequence[PredictionPair], status: TrialStatus) -> dict[str, object]:
    """Return the style and the hover texts of the marks of one status."""
    symbol, colour = MARKS[status]
    width = 2 if symbol.endswith(("open", "thin")) else 0
    return {
        "mode": "markers",
        "marker": {"symbol": symbol, "size": 10, "color": colour, "line": {"width": width, "color": colour}},
        "customdata": [pair.outcome.number for pair in pairs],
        "hovertext": [_hover(pair) for pair in pairs],
        "hovertemplate": "%{text}<br>%{hovertext}<extra></extra>",
    }


def _hover(pair: PredictionPair) -> str:
    """Return the hover text; the page puts number and configuration of the trial before it."""
    predicted, error = pair.predicted_qps, pair.error_frac
    lines = ["no prediction"]
    if predicted is not None:
        lines = [
            f"predicted {formatting.rate(predicted.median)} ({predicted.low:.4g} to {predicted.high:.4g})"
        ]
    status = TRIAL_STATUS_WORDS[pair.status]
    if pair.level_qps is None:
        lines.append(f"{status}, not measured")
    else:
        verb = "offered" if pair.measured_qps is None else "measured"
        lines.append(f"{verb} {formatting.rate(pair.level_qps)}: {status}")
    if error is not None:
        lines.append(f"{formatting.signed_percent(error)} against the predicted median")
    return "<br>".join(lines)


def _label_marks(figure: go.Figure, pairs: Sequence[PredictionPair], floor: float) -> None:
    """Write the status beside every mark that is not feasible, rotated because marks stand close."""
    for pair in pairs:
        if not pair.outcome.feasible:
            figure.add_annotation(
                x=pair.outcome.number,
                y=floor if pair.level_qps is None else pair.level_qps,
                text=TRIAL_STATUS_WORDS[pair.status],
                textangle=-90,
                xshift=12,
                yanchor="bottom",
                showarrow=False,
                font={"size": 11, "color": QUIET},
            )
