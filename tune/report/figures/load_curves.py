"""The load curve of each deployment that was asked several rates: its probes, its limits, its bracket."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.loadgen.latencies import p99_s
from tune.records.outcome import CapacityQps, LatencySpread, Outcome, Probe
from tune.records.study_record import StudyRecord
from tune.report import formatting, further_limits
from tune.report.capacity_text import ALL_CAME_TO, CameTo, bracket, came_to, cost, kind, searched
from tune.report.figures.style import (
    BROKEN,
    FEASIBLE,
    QUIET,
    TEXT,
    Figure,
    FigureView,
    limit_line,
    plotly_spec,
    spans_decades,
    value_axis,
)
from tune.report.trial_status import used
from tune.spec.load import Slo

NAME = "rates"
TITLE = "At which rate does a deployment break its limits?"

PANEL_PX, AROUND_PX = 290, 130
"""Height of one latency's panel, and of legend and title of the axis around all of them."""

MARKS: dict[CameTo, tuple[str, str, str]] = {
    "held": ("circle", "circle-open", FEASIBLE),
    "missed": ("x-thin", "x-thin", BROKEN),
    "stopped early": ("triangle-up-open", "triangle-up-open", BROKEN),
    "not trusted": ("diamond-open", "diamond-open", QUIET),
}
"""What a probe came to: symbol of a run of full length, of a short probe, colour."""

HEADROOM = 1.3
"""Of a latency axis above its highest figure, for the labels there: a ratio, squared on a log axis."""

HOVER_CHARACTERS = 62


def load_curves(study: StudyRecord, outcomes: Sequence[Outcome], ranks: Mapping[str, int]) -> list[Figure]:
    """A figure with a view a deployment, best first; none where no highest rate was searched for."""
    last = len(outcomes) + 1
    asked = [outcome for outcome in outcomes if searched(outcome)]
    if not asked:
        return []
    asked.sort(key=lambda outcome: (ranks.get(outcome.trial_id, last), outcome.number))
    views = tuple(_view(study, outcome, ranks.get(outcome.trial_id)) for outcome in asked)
    caption = (
        "The load curve of one deployment: one mark a probe, numbered as asked. Runs of full length (large) "
        "alone count; a short probe (small) asks a sample of their requests. Bars: the p99 in other orders "
        "of prompt lengths, where it was repeated. Blue ground: rates up to the highest that held; orange: "
        "from the lowest above it that missed. Boundary: what half of all orders should hold. Dashed: the "
        "limits. "
        f"Deployments, best first, n = {len(views):,}."
    )
    return [Figure(NAME, TITLE, caption, None, views=views)]


def _view(study: StudyRecord, outcome: Outcome, rank: int | None) -> FigureView:
    held = outcome.capacity_qps.low
    label = [
        *([f"#{rank}"] if rank is not None else []),
        f"trial {outcome.number}",
        *([split] if (split := formatting.split_label(outcome)) else []),
        "no rate held" if held is None else f"{formatting.rate(held)} held",
    ]
    note = f"{formatting.describe_configuration(outcome, study.space)}: {bracket(outcome)}. {cost(outcome)}."
    panels = _panels(outcome)
    drawn = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    low, high = _rates_shown(outcome)
    _mark_bracket(drawn, outcome, low, high, len(panels))
    for row, key in enumerate(panels, start=1):
        _panel(drawn, row, outcome, study.slo, key)
    drawn.update_xaxes(range=[low, high])
    drawn.update_xaxes(title="target rate, queries/s", row=len(panels), col=1)
    spec = plotly_spec(drawn)
    spec["layout"]["legend"]["itemsizing"] = "trace"
    name = f"{NAME}-{outcome.number}"
    return FigureView(name, " · ".join(label), note, spec, AROUND_PX + PANEL_PX * len(panels))


def _panels(outcome: Outcome) -> list[str]:
    """TTFT, and TPOT where a run of full length, or a probe where there is none, is nearer to its limit."""
    told = [probe for probe in outcome.probes if probe.full] or outcome.probes
    shares = [used(probe) for probe in told]
    binds = any(of.get("p99 TPOT", 0.0) > of.get("p99 TTFT", 0.0) for of in shares)
    return ["ttft", "tpot"] if binds else ["ttft"]


def _rates_shown(outcome: Outcome) -> tuple[float, float]:
    """Ends of the axis: every rate that is marked, and room for a label on both sides."""
    found = outcome.capacity_qps
    marked = [probe.target_qps for probe in outcome.probes]
    marked += [qps for qps in (found.low, found.high, found.estimate) if qps]
    low, high = min(marked), max(marked)
    room = max(0.55 * (high - low), 0.02 * high)
    return max(0.0, low - room), high + room


def _mark_bracket(drawn: go.Figure, outcome: Outcome, low: float, high: float, panels: int) -> None:
    """The ground that is known, and a dotted line at the boundary, in every panel."""
    found = outcome.capacity_qps
    missed = found.high
    for row in range(1, panels + 1):
        number = "" if row == 1 else str(row)
        at = {"xref": f"x{number}", "yref": f"y{number} domain", "y0": 0, "y1": 1}
        ground = {**at, "type": "rect", "layer": "below", "opacity": 0.1, "line": {"width": 0}}
        if found.low is not None:
            drawn.add_shape(**ground, x0=low, x1=found.low, fillcolor=FEASIBLE)
        if missed is not None:
            drawn.add_shape(**ground, x0=missed, x1=high, fillcolor=BROKEN)
        if found.estimate:
            line = {"color": TEXT, "width": 1.5, "dash": "dot"}
            drawn.add_shape(**at, type="line", x0=found.estimate, x1=found.estimate, line=line)
    _name_bracket(drawn, found, (low + high) / 2)


def _name_bracket(drawn: go.Figure, found: CapacityQps, middle_qps: float) -> None:
    """The three rates, where their lines end: what held and missed above, the boundary below."""
    label = {"xref": "x", "yref": "y domain", "showarrow": False}
    top = {**label, "y": 1, "yanchor": "top"}
    if found.low is not None:
        text, font = f"{found.low:.4g} held", {"color": FEASIBLE, "size": 13}
        drawn.add_annotation(**top, x=found.low, text=text, font=font, xanchor="right")
    if found.high is not None:
        text, font = f"{found.high:.4g} missed", {"color": BROKEN, "size": 13}
        drawn.add_annotation(**top, x=found.high, text=text, font=font, xanchor="left")
    if found.estimate:
        text, side = f"boundary {found.estimate:.4g}", "left" if found.estimate < middle_qps else "right"
        drawn.add_annotation(
            **label, x=found.estimate, y=0, yanchor="bottom", text=text, font={"size": 12}, xanchor=side
        )


def _panel(drawn: go.Figure, row: int, outcome: Outcome, slo: Slo, key: str) -> None:
    """One latency of every probe that measured it, and its limit."""
    scale, unit = (1.0, "s") if key == "ttft" else (1e3, "ms")
    limit_s: float | None = getattr(slo, f"{key}_p99_s")
    measured = {
        n: s for n, p in enumerate(outcome.probes) if (s := p99_s(getattr(p, f"{key}_s"))) is not None
    }
    shown = pd.Series([s * scale for s in [*measured.values(), *([limit_s] if limit_s else [])]], dtype=float)
    number = "" if row == 1 else str(row)
    for full in (False, True):
        drawn.add_trace(_line(outcome, full, key, scale), row=row, col=1)
        for to in ALL_CAME_TO:
            which = [
                n for n in measured if (outcome.probes[n].full, came_to(outcome.probes[n])) == (full, to)
            ]
            if which:
                trace = _marks(outcome, which, slo, key, scale)
                drawn.add_trace(trace.update(showlegend=row == 1), row=row, col=1)
    if shown.empty:
        return
    top = max(shown.max(), *(_most(p, key) * scale for p in outcome.probes))
    ends = [0, HEADROOM * top]
    if spans_decades(shown):
        ends = [math.log10(shown.min() / HEADROOM**2), math.log10(top * HEADROOM**2)]
    drawn.update_yaxes(value_axis(shown, f"p99 {key.upper()}, {unit}"), range=ends, row=row, col=1)
    if limit_s is not None:
        limit = limit_s * scale
        limit_line(drawn, f"y{number}", limit, f"limit {limit:g} {unit}", spans_decades(shown))


def _line(outcome: Outcome, full: bool, key: str, scale: float) -> go.Scatter:
    """Through probes of one length, by rate, as far as they compare: not those that were stopped early."""
    alike = [probe for probe in outcome.probes if probe.full == full and came_to(probe) in ("held", "missed")]
    backends = [
        (p.target_qps, p99 * scale) for p in alike if (p99 := p99_s(getattr(p, f"{key}_s"))) is not None
    ]
    backends.sort()
    return go.Scatter(
        x=[qps for qps, _ in backends],
        y=[p99 for _, p99 in backends],
        mode="lines",
        line={"color": QUIET, "width": 1, "dash": "solid" if full else "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def _marks(outcome: Outcome, which: Sequence[int], slo: Slo, key: str, scale: float) -> go.Scatter:
    """Probes of one length that came to the same, as one trace; `which` are their places, from 0."""
    probes = [outcome.probes[n] for n in which]
    to, full = came_to(probes[0]), probes[0].full
    *symbols, colour = MARKS[to]
    p99 = [scale * (p99_s(getattr(probe, f"{key}_s")) or 0.0) for probe in probes]
    over = [_over(probe, key) for probe in probes]
    return go.Scatter(
        x=[probe.target_qps for probe in probes],
        y=[float(f"{value:.5g}") for value in p99],
        mode="markers+text",
        name=f"{kind(probes[0])}, {to}",
        legendgroup=f"{full} {to}",
        marker={
            "symbol": symbols[0 if full else 1],
            "size": 14 if full else 9,
            "color": colour,
            "line": {"width": 3 if full else 2, "color": colour},
        },
        text=[str(n + 1) for n in which],
        textposition="bottom right",
        textfont={"color": QUIET, "size": 12},
        customdata=[outcome.number] * len(which),
        hovertext=[_hover(outcome, n, slo) for n in which],
        hovertemplate="%{hovertext}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [of and max(0.0, of.max * scale - value) for of, value in zip(over, p99, strict=True)],
            "arrayminus": [
                of and max(0.0, value - of.min * scale) for of, value in zip(over, p99, strict=True)
            ],
            "color": colour,
            "thickness": 2.5,
            "width": 0,
        },
    )


def _over(probe: Probe, key: str) -> LatencySpread | None:
    of: LatencySpread | None = getattr(probe.spread, f"{key}_p99_s") if probe.spread else None
    return of


def _most(probe: Probe, key: str) -> float:
    """The highest p99 over orders, s; 0 where it was not repeated."""
    of = _over(probe, key)
    return of.max if of else 0.0


def _hover(outcome: Outcome, n: int, slo: Slo) -> str:
    """What is known of the `n`th probe, as the lines of a hover label."""
    probe = outcome.probes[n]
    lines = [
        f"<b>Probe {n + 1} of {len(outcome.probes)}, {kind(probe)}: {came_to(probe)}</b>",
        f"{probe.target_qps:.4g} queries/s, {formatting.format_figure(probe.completed_qps, 4)} completed; "
        f"{probe.queries:,} queries",
        *_used(probe, slo),
        *further_limits.figure_lines(slo, probe),
    ]
    if probe.spread:
        lines.append(
            f"SLO held in {probe.spread.slo_held} of {probe.spread.shuffles} orders of prompt lengths"
        )
    if probe.reason:
        lines += [html.escape(line, quote=False) for line in textwrap.wrap(probe.reason, HOVER_CHARACTERS)]
    return "<br>".join(lines)


def _used(probe: Probe, slo: Slo) -> list[str]:
    """Each p99 with its limit and its range over orders."""
    told: list[tuple[str, str, float | None, Any]] = [
        ("p99 TTFT", "ttft", slo.ttft_p99_s, formatting.seconds),
        ("p99 TPOT", "tpot", slo.tpot_p99_s, formatting.milliseconds),
    ]
    lines = []
    for name, key, limit_s, show in told:
        text = f"{name} {show(p99_s(getattr(probe, f'{key}_s')))}"
        share = used(probe).get(name)
        if share is not None:
            text += f" of {show(limit_s)} ({share * 100:,.0f} %)"
        of = _over(probe, key)
        lines.append(text + (f", {show(of.min)} to {show(of.max)} over orders" if of else ""))
    return lines
