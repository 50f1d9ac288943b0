"""A calibration as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tune.calibrate.comparison import MetricComparison, rms_error_frac
from tune.calibrate.fit import FittedParameter
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.replay import FIT_SEEDS, REPORT_SEEDS

_NAMES = {
    "ttft_s": ("TTFT", "s", 1.0),
    "tpot_s": ("TPOT", "ms", 1e3),
    "latency_s": ("latency", "s", 1.0),
    "output_tps": ("output", "tokens/s", 1.0),
    "loadgen_tps": ("LoadGen's", "tokens/s", 1.0),
    "scheduled_tps": ("scheduled", "tokens/s", 1.0),
}


def render_runs(runs: Sequence[MeasuredRun], tables: Sequence[Sequence[MetricComparison]]) -> str:
    """One table a run: each figure measured, simulated, its spread over orders of lengths, its error."""
    blocks = [_render_run(run, rows) for run, rows in zip(runs, tables, strict=True)]
    errors = {kind: rms_error_frac(tables, kind == "fitted") for kind in ("fitted", "predicted")}
    told = ", ".join(f"{error:.1%} {kind}" for kind, error in errors.items() if error is not None)
    return "\n\n".join([*blocks, f"root mean square error of the figures: {told}"])


def render_parameters(fitted: Sequence[FittedParameter]) -> str:
    """One line a parameter: value, interval, start and bounds, and what the data say of it."""
    width = max(len(one.parameter.name) for one in fitted)
    head = f"{'parameter':{width}}  {'value':>9}  {'95 % interval':>21}  {'start':>9}  {'bounds':>17}"
    return "\n".join([head, *(_render_parameter(one, width) for one in fitted)])


def describe_run(run: MeasuredRun) -> str:
    """A run in one line: where it is from, what ran, how its lengths are known."""
    lengths = "recorded lengths" if run.asked else f"length seeds {_span(REPORT_SEEDS)}"
    doubt = f"; not valid: {run.doubt}" if run.doubt else ""
    return f"{run.label}: {run.spec.split.label}, {run.spec.load.target_qps:g} queries/s, {lengths}{doubt}"


def describe_seeds(runs: Sequence[MeasuredRun]) -> str:
    """Which length seeds the fit and the table took, where a run needs them."""
    if all(run.asked for run in runs):
        return "every run on its own recorded lengths"
    return f"length seeds {_span(FIT_SEEDS)} fitted, {_span(REPORT_SEEDS)} reported, where none are recorded"


def identifiability(one: FittedParameter) -> str:
    """What the data say of a parameter."""
    share = f"{one.prior_share:.0%} of the prior's width left"
    if one.at_bound:
        return f"at its bound, {share}"
    return share if one.identified else f"not identified, {share}"


def _render_run(run: MeasuredRun, rows: Sequence[MetricComparison]) -> str:
    head = f"{'':20}{'measured':>10}{'simulated':>11}{'spread':>9}{'error':>9}"
    return "\n".join([describe_run(run), head, *(_render_row(row) for row in rows)])


def _render_row(row: MetricComparison) -> str:
    quantity, statistic = row.figure
    name, unit, scale = _NAMES[quantity]
    decimals = 0 if unit == "tokens/s" else 2 if unit == "ms" else 3
    measured, simulated = (f"{value * scale:.{decimals}f}" for value in (row.measured, row.simulated))
    spread = "–" if row.spread is None else f"{row.spread * scale:.{decimals}f}"
    kind = "fitted" if row.fitted else "predicted"
    label = f"{name}, {unit}" if unit == "tokens/s" else f"{name} {statistic}, {unit}"
    return f"{label:20}{measured:>10}{simulated:>11}{spread:>9}{row.error_frac:>+9.1%}  {kind}"


def _render_parameter(one: FittedParameter, width: int) -> str:
    bounds = one.parameter.bounds
    interval = f"{one.low:.4g} .. {one.high:.4g}"
    allowed = f"{bounds.low:g} .. {bounds.high:g}"
    return (
        f"{one.parameter.name:{width}}  {one.value:>9.4g}  {interval:>21}  {one.parameter.start:>9.4g}  "
        f"{allowed:>17}  {identifiability(one)}"
    )


def _span(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}..{seeds[-1]}"
