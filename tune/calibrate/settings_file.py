"""Write a calibration as a Hydra option of the group `cluster`, found with --config-dir."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tune.calibrate.compared_metrics import FITTED_METRICS
from tune.calibrate.comparison import MetricComparison
from tune.calibrate.fit import FittedParameter, fitted_values
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import with_values
from tune.calibrate.tables import describe_run, describe_seeds, identifiability
from tune.errors import ConfigurationError
from tune.records.posterior_summary import PosteriorSummary
from tune.spec.cluster import Calibration
from tune.spec.metrics import TPOT, TTFT

_FITTED_TEXT = ", ".join(
    f"{metric.label} {' and '.join(name for quantity, name in FITTED_METRICS if quantity == metric.field)}"
    for metric in (TTFT, TPOT)
)
_FIRST_LINE = "# A simulated rack, written by action=calibrate."


def check_target(path: Path, shipped: Sequence[str]) -> None:
    """Raise ConfigurationError where `path` is no DIR/cluster/NAME.yaml that may be written.

    NAME must differ from the options `shipped`, which Hydra finds first. A file that action=calibrate did not
    write is kept.
    """
    if (
        path.suffix != ".yaml"
        or path.absolute().parent.name != "cluster"
        or not re.fullmatch(r"\w+", path.stem)
    ):
        raise ConfigurationError(
            f"calibrate.to: found {path}; expected DIR/cluster/NAME.yaml, NAME of letters, digits and _, so "
            "that --config-dir DIR cluster=NAME finds it."
        )
    if path.stem in shipped:
        raise ConfigurationError(
            f"calibrate.to: found {path}, but cluster={path.stem} is shipped with tune and would hide it; "
            "expected another name."
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigurationError(
            f"calibrate.to: {path} cannot be written below {folder}; expected a folder that can."
        )
    if path.is_dir() or (path.exists() and _first_line(path) != _FIRST_LINE):
        raise ConfigurationError(
            f"calibrate.to: {path} is there and action=calibrate did not write it; expected a new name, or a "
            "file of its own to replace. Name another one."
        )


def render_settings(
    calibration: Calibration,
    runs: Sequence[MeasuredRun],
    tables: Sequence[Sequence[MetricComparison]],
    fitted: Sequence[FittedParameter],
) -> str:
    """Render the YAML text: the fitted runs, the errors, and every value of the calibration."""
    lines = [_FIRST_LINE, f"# Fitted to {_FITTED_TEXT} of:"]
    for run, rows in zip(runs, tables, strict=True):
        lines.append(f"#   {describe_run(run)}")
        residuals = [f"{row.metric[0]} {row.metric[1]} {row.error_frac:+.1%}" for row in rows if row.fitted]
        lines.append(f"#     simulated against measured: {', '.join(residuals)}")
    lines.append(f"# {describe_seeds(runs).capitalize()}.")
    if any(estimate.parameter.of_dataset for estimate in fitted):
        lines.append("# Fitted with it, and no part of a cluster; give them on the command line:")
        lines += [f"#   {_line(estimate)}" for estimate in fitted if estimate.parameter.of_dataset]
    lines += ["defaults:", "  - sim", "  - _self_", "calibration:"]
    fitted_by_name = {estimate.parameter.name: estimate for estimate in fitted}
    final = with_values(calibration, fitted_values(fitted))
    for name, value in final.model_dump(mode="json").items():
        note = f"  # {_note(fitted_by_name[name])}" if name in fitted_by_name else ""
        lines.append(f"  {name}: {json.dumps(value)}{note}")
    return "\n".join(lines) + "\n"


def render_learned(calibration: Calibration, study: str, posterior: PosteriorSummary) -> str:
    """Render the YAML text of the calibration that the search of `study` learned."""
    intervals = {parameter.name: parameter.posterior for parameter in posterior.parameters}
    lines = [
        _FIRST_LINE,
        f"# What the search of study {study} has learned after {posterior.trials_observed} trials.",
    ]
    lines += [
        f"# Not part of a calibration: {name} x {interval.median:.3g} "
        f"({interval.low:.3g} .. {interval.high:.3g})."
        for name, interval in intervals.items()
        if name not in posterior.calibration
    ]
    lines += ["defaults:", "  - sim", "  - _self_", "calibration:"]
    for name, value in calibration.model_copy(update=posterior.calibration).model_dump(mode="json").items():
        interval = intervals.get(name)
        note = (
            f"  # learned: 90 % x {interval.low:.3g} .. {interval.high:.3g} of {getattr(calibration, name):g}"
            if interval
            else ""
        )
        lines.append(f"  {name}: {json.dumps(value)}{note}")
    return "\n".join(lines) + "\n"


def _line(estimate: FittedParameter) -> str:
    """Render the override of one estimate with its note."""
    return f"{estimate.parameter.override}={estimate.value!r}  # {_note(estimate)}"


def _note(estimate: FittedParameter) -> str:
    """Render interval, bounds and identifiability of one estimate."""
    bounds = estimate.parameter.bounds
    allowed = f"{bounds.low:g} .. {bounds.high:g}"
    interval = f"{estimate.low:.4g} .. {estimate.high:.4g}"
    return f"fitted: 95 % {interval}, bounds {allowed}, {identifiability(estimate)}"


def _first_line(path: Path) -> str:
    """Return the first line of a file."""
    return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
