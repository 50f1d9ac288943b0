"""Draw the probes of one deployment: a mark per probe with its hover label, and lines between them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from functools import partial

import plotly.graph_objects as go

from tune.analysis.slo import figure_s
from tune.records.outcome import LatencySpread, Outcome, Probe
from tune.report import formatting
from tune.report.capacity_text import ProbeStatus, probe_length, probe_status
from tune.report.figures.style import FEASIBLE, QUIET, VIOLATED
from tune.report.trial_status import limit_shares
from tune.spec.load import Slo
from tune.spec.metrics import LatencyLimit

MARKS: dict[ProbeStatus, tuple[str, str, str]] = {
    "held": ("circle", "circle-open", FEASIBLE),
    "missed": ("x-thin", "x-thin", VIOLATED),
    "aborted": ("triangle-up-open", "triangle-up-open", VIOLATED),
    "too short": ("circle-open-dot", "circle-open-dot", QUIET),
    "invalid": ("diamond-open", "diamond-open", QUIET),
}
"""Symbol of a full run, symbol of a short run, and colour, by the status of the probe."""

HOVER_CHARACTERS = 62
"""Width at which reasons wrap in a hover label, characters."""


def probe_line(outcome: Outcome, full: bool, limit: LatencyLimit) -> go.Scatter:
    """Return a line through completed probes of one length, by rate; aborted ones do not compare."""
    completed = [
        probe for probe in outcome.probes if probe.full == full and probe_status(probe) in ("held", "missed")
    ]
    points = [
        (probe.target_qps, value_s * limit.latency.shown_scale)
        for probe in completed
        if (value_s := figure_s(limit, probe.statistics_of(limit.latency))) is not None
    ]
    points.sort()
    return go.Scatter(
        x=[qps for qps, _ in points],
        y=[value for _, value in points],
        mode="lines",
        line={"color": QUIET, "width": 1, "dash": "solid" if full else "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def probe_marks(outcome: Outcome, indices: Sequence[int], slo: Slo, limit: LatencyLimit) -> go.Scatter:
    """Return the marks of probes of one length and status as one trace; `indices` count from 0."""
    probes = [outcome.probes[index] for index in indices]
    status, full = probe_status(probes[0]), probes[0].full
    *symbols, colour = MARKS[status]
    metric, scale = limit.latency, limit.latency.shown_scale
    values = [scale * (figure_s(limit, probe.statistics_of(metric)) or 0.0) for probe in probes]
    spreads = [_spread(probe, limit) for probe in probes]
    return go.Scatter(
        x=[probe.target_qps for probe in probes],
        y=[float(f"{value:.5g}") for value in values],
        mode="markers+text",
        name=f"{probe_length(probes[0])}, {status}",
        legendgroup=f"{full} {status}",
        marker={
            "symbol": symbols[0 if full else 1],
            "size": 14 if full else 9,
            "color": colour,
            "line": {"width": 3 if full else 2, "color": colour},
        },
        text=[str(index + 1) for index in indices],
        textposition="bottom right",
        textfont={"color": QUIET, "size": 12},
        customdata=[outcome.number] * len(indices),
        hovertext=[_hover(outcome, index, slo) for index in indices],
        hovertemplate="%{hovertext}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [
                spread and max(0.0, spread.max * scale - value)
                for spread, value in zip(spreads, values, strict=True)
            ],
            "arrayminus": [
                spread and max(0.0, value - spread.min * scale)
                for spread, value in zip(spreads, values, strict=True)
            ],
            "color": colour,
            "thickness": 2.5,
            "width": 0,
        },
    )


def _spread(probe: Probe, limit: LatencyLimit) -> LatencySpread | None:
    """Return the spread of the figure of `limit` over shuffles, or None if the probe was not repeated."""
    return probe.spread.of(limit) if probe.spread else None


def max_over_shuffles_s(probe: Probe, limit: LatencyLimit) -> float:
    """Return the highest figure of `limit` over shuffles, s; 0 if the probe was not repeated."""
    spread = _spread(probe, limit)
    return spread.max if spread else 0.0


def _hover(outcome: Outcome, index: int, slo: Slo) -> str:
    """Return the hover label of the probe at `index`, counted from 0."""
    probe = outcome.probes[index]
    lines = [
        f"<b>Probe {index + 1} of {len(outcome.probes)}, {probe_length(probe)}: {probe_status(probe)}</b>",
        f"{probe.target_qps:.4g} queries/s, {formatting.format_figure(probe.completed_qps, 4)} completed; "
        f"{probe.queries:,} queries",
        *_latency_lines(probe, slo),
    ]
    if probe.spread:
        lines.append(f"SLO held in {probe.spread.slo_met} of {probe.spread.shuffles} shuffles")
    if probe.reason:
        lines += [html.escape(line, quote=False) for line in textwrap.wrap(probe.reason, HOVER_CHARACTERS)]
    return "<br>".join(lines)


def _latency_lines(probe: Probe, slo: Slo) -> list[str]:
    """Return the figure of every limit that is shown, with its limit and its range over shuffles."""
    limits_s = dict(slo.limits)
    lines = []
    for limit in slo.shown:
        show = partial(formatting.format_latency, limit.latency)
        text = f"{limit.label} {show(figure_s(limit, probe.statistics_of(limit.latency)))}"
        share = limit_shares(probe).get(limit.label)
        if share is not None:
            text += f" of {show(limits_s.get(limit))} ({share * 100:,.0f} %)"
        spread = _spread(probe, limit)
        lines.append(text + (f", {show(spread.min)} to {show(spread.max)} over shuffles" if spread else ""))
    return lines
