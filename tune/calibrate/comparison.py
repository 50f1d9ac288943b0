"""Compare each metric of measured runs with its simulated value."""

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
    """Hold one metric in its own unit, measured and simulated.

    `simulated` is the mean over shuffle seeds and `spread` their standard deviation, None for a single
    shuffle.
    """

    metric: MetricName
    measured: float
    simulated: float
    spread: float | None

    @property
    def fitted(self) -> bool:
        """Return whether the fit uses this metric."""
        return self.metric in FITTED_METRICS

    @property
    def error_frac(self) -> float:
        """Return the relative error of the simulated value."""
        return self.simulated / self.measured - 1


def compare_run(run: MeasuredRun, calibration: Calibration, values: Values) -> tuple[MetricComparison, ...]:
    """Return every metric that `run` and the simulated rack with `values` both have.

    Simulated values are means over REPORT_SEEDS where the lengths of the run are not on record.
    """
    shuffles = simulate_run(run, calibration, values, REPORT_SEEDS)
    rows = []
    for metric in ALL_METRICS:
        simulated = np.array([metrics[metric] for metrics in shuffles if metric in metrics])
        if metric in run.metrics and len(simulated):
            spread = float(simulated.std(ddof=1)) if len(simulated) > 1 else None
            rows.append(MetricComparison(metric, run.metrics[metric], float(simulated.mean()), spread))
    return tuple(rows)


def rms_error_frac(tables: Sequence[Sequence[MetricComparison]], fitted: bool) -> float | None:
    """Return the root mean square relative error of the fitted metrics of all runs, or of the predicted ones.

    Returns None without such metrics.
    """
    errors = [row.error_frac for rows in tables for row in rows if row.fitted == fitted]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None
