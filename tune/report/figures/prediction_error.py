"""What a search expected of each trial when it proposed it, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval
from tune.records.proposals import Proposal
from tune.report import formatting
from tune.report.figures.style import BROKEN, FEASIBLE, QUIET, TEXT, Figure, empty_figure, make_figure
from tune.report.trial_status import TRIAL_STATUS_WORDS, TrialStatus, trial_status

NAME = "expected"
TITLE = "Prediction against measurement"

MARKS: dict[TrialStatus, tuple[str, str]] = {
    "feasible": ("circle", FEASIBLE),
    "given_up": ("triangle-down-open", BROKEN),
    "slo_broken": ("x-thin", BROKEN),
    "untrusted": ("diamond-open", QUIET),
    "infeasible": ("square-x-open", BROKEN),
    "failed": ("hourglass-open", QUIET),
}
"""Symbol and colour; the last two were not measured and stand on the floor of the upper panel."""

HEIGHT_PX = 620
FEW_TRIALS = 40
"""Up to so many trials, marks of what did not hold are named beside them."""

TICKS = 12
"""At most about so many of trial numbers."""


@dataclass(frozen=True)
class PredictionPair:
    """A trial, what was expected of it (None: nothing) and its measured boundary (None: not measured)."""

    outcome: Outcome
    verdict: TrialStatus
    expected: Interval | None
    measured_qps: float | None

    @property
    def off_frac(self) -> float | None:
        """Measured over expected, less 1; None where either is missing."""
        if self.measured_qps is None or self.expected is None or self.expected.median <= 0:
            return None
        return self.measured_qps / self.expected.median - 1

    @property
    def level_qps(self) -> float | None:
        """Where its mark stands: at its boundary, at the rate that it was asked where none was searched for;
        None where nothing was measured."""
        if self.verdict in ("infeasible", "failed"):
            return None
        return self.outcome.target_qps if self.measured_qps is None else self.measured_qps

    @property
    def inside(self) -> bool:
        of = self.expected
        return of is not None and self.measured_qps is not None and of.low <= self.measured_qps <= of.high


def prediction_pairs(outcomes: Sequence[Outcome], proposals: Sequence[Proposal]) -> list[PredictionPair]:
    """In the order proposed. `outcomes` holds each trial once; a trial's first proposal counts."""
    expected: dict[str, Interval | None] = {}
    for proposal in proposals:
        expected.setdefault(proposal.trial_id, proposal.expected_capacity_qps)
    return [
        PredictionPair(
            outcome,
            trial_status(outcome),
            expected.get(outcome.trial_id),
            outcome.capacity_qps.estimate if outcome.status == "measured" else None,
        )
        for outcome in sorted(outcomes, key=lambda o: o.number)
    ]


def prediction_figure(of: Sequence[PredictionPair]) -> Figure:
    """Expectations and measurements, trial by trial; below, their difference in percent."""
    told = [pair for pair in of if pair.expected is not None]
    if not told:
        return empty_figure(NAME, TITLE, "Left out: of no trial on record an expectation was kept.")
    drawn = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.6, 0.4])
    low, high = _ends(of)
    floor = low - 0.06 * (high - low)
    drawn.add_trace(_expected(told), row=1, col=1)
    drawn.add_trace(_bands(told), row=2, col=1)
    _best_so_far(drawn, of)
    for kind in MARKS:
        some = [pair for pair in of if pair.verdict == kind]
        if some:
            drawn.add_trace(_marks(some, kind, floor), row=1, col=1)
            drawn.add_trace(_differences(some, kind), row=2, col=1)
    if len(of) <= FEW_TRIALS:
        _name_marks(drawn, of, floor)
    drawn.update_yaxes(title="boundary, queries/s", range=[low - 0.12 * (high - low), high], row=1, col=1)
    drawn.update_yaxes(title="difference, %", row=2, col=1)
    last = max(pair.outcome.number for pair in of)
    drawn.update_xaxes(range=[-0.6, last + 0.6], tick0=0, dtick=max(1, round(last / TICKS)))
    drawn.update_xaxes(title="trial number", row=2, col=1)
    line = {"color": TEXT, "width": 1, "dash": "dot"}
    drawn.add_shape(type="line", xref="x2 domain", yref="y2", x0=0, x1=1, y0=0, y1=0, line=line)
    return make_figure(NAME, TITLE, _caption(of, told), drawn, HEIGHT_PX)


def how_predictions_sharpened(of: Sequence[PredictionPair]) -> str:
    """How wide expectations were and how far off, of the first third of the trials and of the last.

    Of those that were given up no boundary was measured: they do not count.
    """
    told = [pair for pair in of if pair.off_frac is not None and pair.verdict != "given_up"]
    if not told:
        return "Of no trial with an expectation the boundary is known."
    inside = sum(pair.inside for pair in told)
    text = (
        f"{inside:,} of {len(told):,} boundaries were measured inside the 90 % interval that was expected "
        "(those given up not counted)."
    )
    third = len(told) // 3
    if third < 2:
        return text
    parts = [
        f"{name} {third} the interval reached {_half_width(some)} and the measurement was "
        f"{median(abs(pair.off_frac or 0.0) for pair in some) * 100:.1f} % off"
        for name, some in (("of the first", told[:third]), ("of the last", told[-third:]))
    ]
    return f"{text} Medians: {parts[0]}; {parts[1]}."


def _half_width(some: Sequence[PredictionPair]) -> str:
    """±12 %: half the interval's width over its median, the median of some trials."""
    halves = [(of.high - of.low) / 2 / of.median for pair in some if (of := pair.expected)]
    return f"±{median(halves) * 100:.0f} %"


def _caption(of: Sequence[PredictionPair], told: Sequence[PredictionPair]) -> str:
    without = sum(pair.verdict not in ("infeasible", "failed") and pair.measured_qps is None for pair in of)
    more = f", {without:,} without a boundary, at the rate that they were asked" if without else ""
    return (
        "Grey: what the search expected of a trial when it proposed it, median and 90 % interval. Marks: the "
        "boundary that was measured, the rate that half of all orders of prompt lengths should hold; where a "
        "deployment was given up, what was expected of it then. On the floor: not measured. Below, by how "
        f"much it differs from the expected median. {how_predictions_sharpened(of)} n = {formatting.plural(len(of), 'trial')}, "
        f"{len(told):,} with an expectation{more}."
    )


def _ends(of: Sequence[PredictionPair]) -> tuple[float, float]:
    """Of all that is drawn, queries/s, with room for a mark above."""
    levels = [level for pair in of if (level := pair.level_qps) is not None]
    levels += [end for pair in of if pair.expected for end in (pair.expected.low, pair.expected.high)]
    low, high = min(levels), max(levels)
    return low, high + 0.06 * (high - low or high or 1.0)


def _expected(told: Sequence[PredictionPair]) -> go.Scatter:
    some = [(pair.outcome.number, of) for pair in told if (of := pair.expected)]
    return go.Scatter(
        x=[number for number, _ in some],
        y=[of.median for _, of in some],
        name="expected: median and 90 % interval",
        hoverinfo="skip",
        **_bar([(of.median, of.low, of.high) for _, of in some]),
    )


def _bands(told: Sequence[PredictionPair]) -> go.Scatter:
    """The intervals as percent of their medians, around 0."""
    some = [(pair.outcome.number, of) for pair in told if (of := pair.expected) and of.median > 0]
    percent = [(0.0, (of.low / of.median - 1) * 100, (of.high / of.median - 1) * 100) for _, of in some]
    return go.Scatter(
        x=[number for number, _ in some],
        y=[0.0] * len(some),
        showlegend=False,
        hoverinfo="skip",
        **_bar(percent),
    )


def _bar(of: Sequence[tuple[float, float, float]]) -> dict[str, object]:
    """Style of intervals, given as (median, low, high): a broad pale bar with a dash at the median."""
    return {
        "mode": "markers",
        "opacity": 0.5,
        "marker": {"symbol": "line-ew", "size": 13, "line": {"width": 2.5, "color": TEXT}, "color": TEXT},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - middle for middle, _, high in of],
            "arrayminus": [middle - low for middle, low, _ in of],
            "color": QUIET,
            "thickness": 6,
            "width": 0,
        },
    }


def _best_so_far(drawn: go.Figure, of: Sequence[PredictionPair]) -> None:
    best = 0.0
    x, y = [], []
    for pair in of:
        if pair.verdict == "feasible" and (pair.level_qps or 0.0) > best:
            best = pair.level_qps or 0.0
            x.append(pair.outcome.number)
            y.append(best)
    if x:
        x, y = [*x, max(pair.outcome.number for pair in of)], [*y, best]
        line = {"shape": "hv", "width": 2, "color": TEXT}
        drawn.add_trace(
            go.Scatter(x=x, y=y, mode="lines", line=line, name="best so far", hoverinfo="skip"), row=1, col=1
        )


def _marks(some: Sequence[PredictionPair], kind: TrialStatus, floor: float) -> go.Scatter:
    unmeasured = ", not measured" if kind in ("infeasible", "failed") else ""
    return go.Scatter(
        x=[pair.outcome.number for pair in some],
        y=[floor if pair.level_qps is None else pair.level_qps for pair in some],
        name=f"{TRIAL_STATUS_WORDS[kind]}{unmeasured} (n = {len(some):,})",
        **_mark_style(some, kind),
    )


def _differences(some: Sequence[PredictionPair], kind: TrialStatus) -> go.Scatter:
    with_both = [pair for pair in some if pair.off_frac is not None]
    return go.Scatter(
        x=[pair.outcome.number for pair in with_both],
        y=[float(f"{(pair.off_frac or 0.0) * 100:.4g}") for pair in with_both],
        showlegend=False,
        **_mark_style(with_both, kind),
    )


def _mark_style(some: Sequence[PredictionPair], kind: TrialStatus) -> dict[str, object]:
    symbol, colour = MARKS[kind]
    width = 2 if symbol.endswith(("open", "thin")) else 0
    return {
        "mode": "markers",
        "marker": {"symbol": symbol, "size": 10, "color": colour, "line": {"width": width, "color": colour}},
        "customdata": [pair.outcome.number for pair in some],
        "hovertext": [_hover(pair) for pair in some],
        "hovertemplate": "%{text}<br>%{hovertext}<extra></extra>",
    }


def _hover(pair: PredictionPair) -> str:
    """What the page's own label of a trial (its number, its configuration) is followed by."""
    of, measured, off = pair.expected, pair.measured_qps, pair.off_frac
    lines = ["nothing was expected of it"]
    if of is not None:
        lines = [f"expected {formatting.rate(of.median)} ({of.low:.4g} to {of.high:.4g})"]
    came = TRIAL_STATUS_WORDS[pair.verdict]
    if pair.level_qps is None:
        lines.append(f"{came}, not measured")
    else:
        lines.append(
            f"{'asked' if measured is None else 'measured'} {formatting.rate(pair.level_qps)}: {came}"
        )
    if off is not None:
        lines.append(f"{formatting.signed_percent(off)} against the expected median")
    return "<br>".join(lines)


def _name_marks(drawn: go.Figure, of: Sequence[PredictionPair], floor: float) -> None:
    """The verdict beside every mark that did not hold, upright: neighbours stand close."""
    for pair in of:
        if pair.verdict != "feasible":
            drawn.add_annotation(
                x=pair.outcome.number,
                y=floor if pair.level_qps is None else pair.level_qps,
                text=TRIAL_STATUS_WORDS[pair.verdict],
                textangle=-90,
                xshift=12,
                yanchor="bottom",
                showarrow=False,
                font={"size": 11, "color": QUIET},
            )
