"""Draw the probes of one deployment: a mark per probe with its hover label, and lines between them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from tune.loadgen.latencies import p99_s
from tune.records.outcome import LatencySpread, Outcome, Probe
from tune.report import formatting, further_limits
from tune.report.capacity_text import ProbeStatus, probe_length, probe_status
from tune.report.figures.style import FEASIBLE, QUIET, VIOLATED
from tune.report.trial_status import limit_shares
from tune.spec.load import Slo

MARKS: dict[ProbeStatus, tuple[str, str, str]] = {
    "held": ("circle", "circle-open", FEASIBLE),
    "missed": ("x-thin", "x-thin", VIOLATED),
    "aborted": ("triangle-up-open", "triangle-up-open", VIOLATED),
    "invalid": ("diamond-open", "diamond-open", QUIET),
}
"""Symbol of a full run, symbol of a short run, and colour, by the status of the probe."""

HOVER_CHARACTERS = 62
"""Width at which reasons wrap in a hover label, characters."""


def probe_line(outcome: Outcome, full: bool, key: str, scale: float) -> go.Scatter:
    """Return a line through completed probes of one length, by rate; aborted ones do not compare."""
    completed = [
        probe for probe in outcome.probes if probe.full == full and probe_status(probe) in ("held", "missed")
    ]
    points = [
        (probe.target_qps, p99 * scale)
        for probe in completed
        if (p99 := p99_s(getattr(probe, f"{key}_s"))) is not None
    ]
    points.sort()
    return go.Scatter(
        x=[qps for qps, _ in points],
        y=[p99 for _, p99 in points],
        mode="lines",
        line={"color": QUIET, "width": 1, "dash": "solid" if full else "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def probe_marks(outcome: Outcome, indices: Sequence[int], slo: Slo, key: str, scale: float) -> go.Scatter:
    """Return the marks of probes of one length and status as one trace; `indices` count from 0."""
    probes = [outcome.probes[index] for index in indices]
    status, full = probe_status(probes[0]), probes[0].full
    *symbols, colour = MARKS[status]
    p99 = [scale * (p99_s(getattr(probe, f"{key}_s")) or 0.0) for probe in probes]
    spreads = [_spread(probe, key) for probe in probes]
    return go.Scatter(
        x=[probe.target_qps for probe in probes],
        y=[float(f"{value:.5g}") for value in p99],
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
                for spread, value in zip(spreads, p99, strict=True)
            ],
            "arrayminus": [
                spread and max(0.0, value - spread.min * scale)
                for spread, value in zip(spreads, p99, strict=True)
            ],
            "color": colour,
            "thickness": 2.5,
            "width": 0,
        },
    )


def _spread(probe: Probe, key: str) -> LatencySpread | None:
    """Return the spread of a p99 over shuffles, or None if the probe was not repeated."""
    spread: LatencySpread | None = getattr(probe.spread, f"{key}_p99_s") if probe.spread else None
    return spread


def max_over_shuffles_s(probe: Probe, key: str) -> float:
    """Return the highest p99 over shuffles, s; 0 if the probe was not repeated."""
    spread = _spread(probe, key)
    return spread.max if spread else 0.0


def _hover(outcome: Outcome, index: int, slo: Slo) -> str:
    """Return the hover label of the probe at `index`, counted from 0."""
    probe = outcome.probes[index]
    lines = [
        f"<b>Probe {index + 1} of {len(outcome.probes)}, {probe_length(probe)}: {probe_status(probe)}</b>",
        f"{probe.target_qps:.4g} queries/s, {formatting.format_figure(probe.completed_qps, 4)} completed; "
        f"{probe.queries:,} queries",
        *_latency_lines(probe, slo),
        *further_limits.figure_lines(slo, probe),
    ]
    if probe.spread:
        lines.append(f"SLO held in {probe.spread.slo_held} of {probe.spread.shuffles} shuffles")
    if probe.reason:
        lines += [html.escape(line, quote=False) for line in textwrap.wrap(probe.reason, HOVER_CHARACTERS)]
    return "<br>".join(lines)


def _latency_lines(probe: Probe, slo: Slo) -> list[str]:
    """Return each p99 with its limit and its range over shuffles."""
    latencies: list[tuple[str, str, float | None, Any]] = [
        ("p99 TTFT", "ttft", slo.ttft_p99_s, formatting.seconds),
        ("p99 TPOT", "tpot", slo.tpot_p99_s, formatting.milliseconds),
    ]
    lines = []
    for name, key, limit_s, show in latencies:
        text = f"{name} {show(p99_s(getattr(probe, f'{key}_s')))}"
        share = limit_shares(probe).get(name)
        if share is not None:
            text += f" of {show(limit_s)} ({share * 100:,.0f} %)"
        spread = _spread(probe, key)
        lines.append(text + (f", {show(spread.min)} to {show(spread.max)} over shuffles" if spread else ""))
    return lines
