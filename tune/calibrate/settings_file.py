"""A calibration as a Hydra option of the group `cluster`, found with --config-dir."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tune.calibrate.comparison import MetricComparison
from tune.calibrate.fit import FittedParameter, fitted_values
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import with_values
from tune.calibrate.tables import describe_run, describe_seeds, identifiability
from tune.errors import ConfigurationError
from tune.records.posterior_summary import PosteriorSummary
from tune.spec.cluster import Calibration

_MARK = "# A simulated rack, written by action=calibrate."


def check_target(path: Path, shipped: Sequence[str]) -> None:
    """Raises ConfigurationError where `path` is no DIR/cluster/NAME.yaml that may be written.

    NAME must differ from the options `shipped`, which Hydra finds first. A file that action=calibrate did
    not write stays.
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
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigurationError(
            f"calibrate.to: {path} cannot be written below {folder}; expected a folder that can."
        )
    if path.is_dir() or (path.exists() and _first_line(path) != _MARK):
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
    """The YAML text: what it was fitted to, how near it comes, and every value of the calibration."""
    lines = [_MARK, "# Fitted to TTFT mean and p99, TPOT mean and p90 of:"]
    for run, rows in zip(runs, tables, strict=True):
        lines.append(f"#   {describe_run(run)}")
        residuals = [f"{row.figure[0]} {row.figure[1]} {row.error_frac:+.1%}" for row in rows if row.fitted]
        lines.append(f"#     simulated against measured: {', '.join(residuals)}")
    lines.append(f"# {describe_seeds(runs).capitalize()}.")
    if any(one.parameter.of_dataset for one in fitted):
        lines.append("# Fitted with it, and no part of a cluster; give them on the command line:")
        lines += [f"#   {_line(one)}" for one in fitted if one.parameter.of_dataset]
    lines += ["defaults:", "  - sim", "  - _self_", "calibration:"]
    format_counts = {one.parameter.name: one for one in fitted}
    final = with_values(calibration, fitted_values(fitted))
    for name, value in final.model_dump(mode="json").items():
        note = f"  # {_note(format_counts[name])}" if name in format_counts else ""
        lines.append(f"  {name}: {json.dumps(value)}{note}")
    return "\n".join(lines) + "\n"


def render_learned(calibration: Calibration, study: str, belief: PosteriorSummary) -> str:
    """The YAML text of the rack that the search of `study` believes in."""
    known = {one.name: one.posterior for one in belief.parameters}
    lines = [_MARK, f"# What the search of study {study} believes after {belief.trials_observed} trials."]
    lines += [
        f"# Not held by a calibration: {name} x {now.median:.3g} ({now.low:.3g} .. {now.high:.3g})."
        for name, now in known.items()
        if name not in belief.calibration
    ]
    lines += ["defaults:", "  - sim", "  - _self_", "calibration:"]
    for name, value in calibration.model_copy(update=belief.calibration).model_dump(mode="json").items():
        now = known.get(name)
        note = (
            f"  # learned: 90 % x {now.low:.3g} .. {now.high:.3g} of {getattr(calibration, name):g}"
            if now
            else ""
        )
        lines.append(f"  {name}: {json.dumps(value)}{note}")
    return "\n".join(lines) + "\n"


def _line(one: FittedParameter) -> str:
    return f"{one.parameter.override}={one.value!r}  # {_note(one)}"


def _note(one: FittedParameter) -> str:
    bounds = one.parameter.bounds
    allowed = f"{bounds.low:g} .. {bounds.high:g}"
    return f"fitted: 95 % {one.low:.4g} .. {one.high:.4g}, bounds {allowed}, {identifiability(one)}"


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
