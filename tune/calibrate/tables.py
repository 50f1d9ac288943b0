"""Render a calibration as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tune.calibrate.comparison import MetricComparison, rms_error_frac
from tune.calibrate.fit import FittedParameter
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.replay import FIT_SEEDS, REPORT_SEEDS
from tune.spec.metrics import LATENCIES, RATES, SCHEDULED_TPS, LatencyMetric, RateMetric

_QUANTITIES: dict[str, LatencyMetric | RateMetric] = {
    **{metric.field: metric for metric in LATENCIES},
    **{metric.name: metric for metric in (*RATES, SCHEDULED_TPS)},
}
"""The metrics of the table by their quantity in MetricName."""


def render_runs(runs: Sequence[MeasuredRun], tables: Sequence[Sequence[MetricComparison]]) -> str:
    """Render one table for each run: each metric with its values, spread and error."""
    blocks = [_render_run(run, rows) for run, rows in zip(runs, tables, strict=True)]
    errors = {kind: rms_error_frac(tables, kind == "fitted") for kind in ("fitted", "predicted")}
    error_text = ", ".join(f"{error:.1%} {kind}" for kind, error in errors.items() if error is not None)
    return "\n\n".join([*blocks, f"root mean square error of the figures: {error_text}"])


def render_parameters(fitted: Sequence[FittedParameter]) -> str:
    """Render one line for each parameter: value, interval, start, bounds, and what the data say about it."""
    width = max(len(estimate.parameter.name) for estimate in fitted)
    head = f"{'parameter':{width}}  {'value':>9}  {'95 % interval':>21}  {'start':>9}  {'bounds':>17}"
    return "\n".join([head, *(_render_parameter(estimate, width) for estimate in fitted)])


def describe_run(run: MeasuredRun) -> str:
    """Return a run in one line: its origin, its configuration, and how its lengths are known."""
    lengths = "recorded lengths" if run.recorded else f"shuffle seeds {_span(REPORT_SEEDS)}"
    rate = f"{run.spec.load.target_qps:g} queries/s"
    return f"{run.label}: {run.spec.split.label}, {rate}, {lengths}"


def describe_seeds(runs: Sequence[MeasuredRun]) -> str:
    """Return which shuffle seeds the fit and the table use, where a run needs any."""
    if all(run.recorded for run in runs):
        return "every run on its own recorded lengths"
    return f"shuffle seeds {_span(FIT_SEEDS)} fitted, {_span(REPORT_SEEDS)} reported, where none are recorded"


def identifiability(estimate: FittedParameter) -> str:
    """Return what the data say about a parameter."""
    share = f"{estimate.prior_sd_ratio:.0%} of the prior's width left"
    if estimate.at_bound:
        return f"at its bound, {share}"
    return share if estimate.identified else f"not identified, {share}"


def _render_run(run: MeasuredRun, rows: Sequence[MetricComparison]) -> str:
    """Render the table of one run."""
    head = f"{'':20}{'measured':>10}{'simulated':>11}{'spread':>9}{'error':>9}"
    return "\n".join([describe_run(run), head, *(_render_row(row) for row in rows)])


def _render_row(row: MetricComparison) -> str:
    """Render one metric."""
    quantity, statistic = row.metric
    metric = _QUANTITIES[quantity]
    if isinstance(metric, RateMetric):
        label, scale, decimals = f"{metric.label}, {metric.unit}", 1.0, 0
    else:
        label, scale = f"{metric.label} {statistic}, {metric.shown_unit}", metric.shown_scale
        decimals = 2 if metric.shown_unit == "ms" else 3
    measured, simulated = (f"{value * scale:.{decimals}f}" for value in (row.measured, row.simulated))
    spread = "–" if row.spread is None else f"{row.spread * scale:.{decimals}f}"
    kind = "fitted" if row.fitted else "predicted"
    return f"{label:20}{measured:>10}{simulated:>11}{spread:>9}{row.error_frac:>+9.1%}  {kind}"


def _render_parameter(estimate: FittedParameter, width: int) -> str:
    """Render one parameter."""
    bounds = estimate.parameter.bounds
    interval = f"{estimate.low:.4g} .. {estimate.high:.4g}"
    allowed = f"{bounds.low:g} .. {bounds.high:g}"
    return (
        f"{estimate.parameter.name:{width}}  {estimate.value:>9.4g}  {interval:>21}  "
        f"{estimate.parameter.start:>9.4g}  "
        f"{allowed:>17}  {identifiability(estimate)}"
    )


def _span(seeds: Sequence[int]) -> str:
    """Render the first and the last seed."""
    return f"{seeds[0]}..{seeds[-1]}"
