"""A calibration beside the runs it should resemble: each figure measured and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.calibrate.compared_metrics import ALL_METRICS, FITTED_METRICS, MetricName
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import Values
from tune.calibrate.replay import REPORT_SEEDS, simulate_run
from tune.spec.cluster import Calibration


@dataclass(frozen=True)
class MetricComparison:
    """One figure in its own unit. `simulated` is the mean over `orders` length seeds and `spread` their
    standard deviation, None where one order is all there is."""

    figure: MetricName
    measured: float
    simulated: float
    spread: float | None

    @property
    def fitted(self) -> bool:
        return self.figure in FITTED_METRICS

    @property
    def error_frac(self) -> float:
        return self.simulated / self.measured - 1


def compare_run(run: MeasuredRun, calibration: Calibration, values: Values) -> tuple[MetricComparison, ...]:
    """Every figure that `run` and the rack with `values` both have, over REPORT_SEEDS where lengths are not
    on record."""
    orders = simulate_run(run, calibration, values, REPORT_SEEDS)
    rows = []
    for figure in ALL_METRICS:
        found = np.array([order[figure] for order in orders if figure in order])
        if figure in run.figures and len(found):
            spread = float(found.std(ddof=1)) if len(found) > 1 else None
            rows.append(MetricComparison(figure, run.figures[figure], float(found.mean()), spread))
    return tuple(rows)


def rms_error_frac(tables: Sequence[Sequence[MetricComparison]], fitted: bool) -> float | None:
    """Root mean square of the relative errors of the fitted figures of all runs, or of the predicted ones;
    None of no figures."""
    errors = [row.error_frac for rows in tables for row in rows if row.fitted == fitted]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None
