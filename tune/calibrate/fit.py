"""Fit parameters of the simulated rack to measured runs by penalised least squares on logarithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from tune.calibrate.compared_metrics import FITTED_METRICS, MetricName, MetricValues
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import Parameter, Values
from tune.calibrate.replay import FIT_SEEDS, simulate_run
from tune.core.arrays import FloatArray
from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration

MODEL_ERROR_FRAC = 0.02
"""Relative error that the simulator has even with the best parameters.

Chosen here: the least mean error of its step times (docs/benchmarks.md).
"""

IDENTIFIED_SD_RATIO = 0.5
"""Ratio of posterior to prior standard deviation below which a parameter counts as identified."""

_HALF_WIDTHS_U = (0.5, 0.1)
"""Half the width of the central differences of each round, in prior widths.

Wide ones bridge the ripples that single requests make, and lead off a bound.
"""
_SD_ROUNDS = 4

_TOLERANCE = 1e-3
_MAX_EVALUATIONS = 25
_BOUND_TOLERANCE_U = 1e-3
_START_MARGIN_U = 0.1

Progress = Callable[[float], None]
"""Receives the root mean square of ln(simulated / measured) of the fitted metrics, once an evaluation."""


@dataclass(frozen=True)
class FittedParameter:
    """Hold the estimate of one parameter with its 95 % interval `low..high`, prior included.

    `prior_sd_ratio` is its standard deviation over that of its prior: 1 where the data say nothing.
    """

    parameter: Parameter
    value: float
    low: float
    high: float
    prior_sd_ratio: float

    @property
    def identified(self) -> bool:
        """Return whether the data determine the value."""
        return self.prior_sd_ratio < IDENTIFIED_SD_RATIO

    @property
    def at_bound(self) -> bool:
        """Return whether the value lies at one of its bounds."""
        bounds = self.parameter.bounds
        nearest = min(
            abs(self.parameter.u(self.value) - self.parameter.u(end)) for end in (bounds.low, bounds.high)
        )
        return nearest < _BOUND_TOLERANCE_U


def fit(
    runs: Sequence[MeasuredRun],
    calibration: Calibration,
    parameters: Sequence[Parameter],
    progress: Progress,
) -> tuple[FittedParameter, ...]:
    """Return the values of `parameters` that bring the simulator nearest to the fitted metrics of `runs`.

    Parameters
    ----------
    runs
        The measured runs, at least one.
    calibration
        Values of all parameters that are not fitted.
    parameters
        The parameters to fit, with their starts, bounds and priors.
    progress
        Receives the misfit after every evaluation.

    Returns
    -------
    tuple[FittedParameter, ...]
        One estimate for each parameter, in order.

    Raises
    ------
    ConfigurationError
        A parameter of the dataset is fitted to recorded lengths only, or the simulator answers nothing.

    Notes
    -----
    Minimises the sum over runs and metrics of (mean over FIT_SEEDS of ln(simulated / measured))^2 / e^2 plus
    the sum of u^2, the priors. e^2 is MODEL_ERROR_FRAC^2 and, where lengths are not on record, the variance
    that their shuffle gives a single run; it is taken at the start and once more at the first optimum. Every
    evaluation uses the same seeds.
    """
    _require_effect(runs, parameters)
    problem = _Problem(runs, calibration, parameters, progress)
    u = np.zeros(len(parameters))
    for step_u in _HALF_WIDTHS_U:
        expected_sd = np.sqrt(MODEL_ERROR_FRAC**2 + problem.log_ratios(u)[1])
        u = problem.solve(u, expected_sd, step_u)
    sd_u = problem.posterior_sd(u, expected_sd)
    return tuple(_estimate(*values) for values in zip(parameters, u, sd_u, strict=True))


@dataclass(frozen=True, eq=False)
class _Problem:
    """Evaluate the misfit as a function of u, shape (parameters,)."""

    runs: Sequence[MeasuredRun]
    calibration: Calibration
    parameters: Sequence[Parameter]
    progress: Progress

    def solve(self, u: FloatArray, expected_sd: FloatArray, step_u: float) -> FloatArray:
        """Return the best u, starting at `u`, for log ratios with standard deviations `expected_sd`."""
        low, high = self._ends()
        steps = np.full(len(u), step_u)
        solution = least_squares(
            lambda u_values: np.concatenate([self.log_ratios(u_values)[0] / expected_sd, u_values]),
            np.clip(u, low + _START_MARGIN_U, high - _START_MARGIN_U),
            jac=lambda u_values: np.concatenate(
                [self._slopes(u_values, steps) / expected_sd[:, None], np.eye(len(u_values))]
            ),
            bounds=(low, high),
            xtol=_TOLERANCE,
            ftol=_TOLERANCE,
            max_nfev=_MAX_EVALUATIONS,
        )
        best: FloatArray = solution.x
        return best

    def posterior_sd(self, u: FloatArray, expected_sd: FloatArray) -> FloatArray:
        """Return standard deviations of `u`, prior included, widened where log ratios exceed `expected_sd`.

        They are those of a linear problem whose slopes are central differences over these deviations
        themselves: a queue that overflows within reach bounds a parameter, though nearby nothing changes.
        """
        excess = max(1.0, float(np.mean(np.square(self.log_ratios(u)[0] / expected_sd))))
        sd_u = np.ones(len(u))
        for _ in range(_SD_ROUNDS):
            slopes = self._slopes(u, np.maximum(sd_u, _HALF_WIDTHS_U[-1])) / expected_sd[:, None]
            information = slopes.T @ slopes / excess + np.eye(len(u))
            sd_u = np.sqrt(sd_u * np.sqrt(np.diag(np.linalg.inv(information))))
        return sd_u

    def log_ratios(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return means and variances of ln(simulated / measured), shape (runs x metrics,) each.

        The mean is that over seeds; the variance is that of one measured run about it, 0 for recorded
        requests.
        """
        values = values_at(self.parameters, u)
        run_ratios = [_log_ratios(run, self.calibration, values) for run in self.runs]
        means, variances = (np.concatenate(part) for part in zip(*run_ratios, strict=True))
        self.progress(float(np.sqrt(np.mean(np.square(means)))))
        return means, variances

    def _slopes(self, u: FloatArray, steps: FloatArray) -> FloatArray:
        """Return central differences of the log ratios, shape (runs x metrics, parameters)."""
        low, high = self._ends()
        columns = []
        for index in range(len(u)):
            below, above = u.copy(), u.copy()
            below[index] = max(u[index] - steps[index], low[index])
            above[index] = min(u[index] + steps[index], high[index])
            rise = self.log_ratios(above)[0] - self.log_ratios(below)[0]
            columns.append(rise / (above[index] - below[index]))
        return np.stack(columns, axis=1)

    def _ends(self) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper bounds of u, shape (parameters,) each."""
        low, high = (
            np.array([p.u(getattr(p.bounds, end)) for p in self.parameters]) for end in ("low", "high")
        )
        return low, high


def values_at(parameters: Sequence[Parameter], u: FloatArray) -> Values:
    """Return the value of each parameter at `u`, by name."""
    pairs = zip(parameters, u, strict=True)
    return {parameter.name: parameter.value(float(distance)) for parameter, distance in pairs}


def fitted_values(fitted: Sequence[FittedParameter]) -> Values:
    """Return the estimated value of each parameter, by name."""
    return {estimate.parameter.name: estimate.value for estimate in fitted}


def _log_ratios(run: MeasuredRun, calibration: Calibration, values: Values) -> tuple[FloatArray, FloatArray]:
    """Return mean log ratio and variance of each fitted metric of one run, shape (metrics,) each."""
    shuffles = simulate_run(run, calibration, values, FIT_SEEDS)
    log_simulated = np.log(
        [[_metric_value(run, metrics, metric) for metric in FITTED_METRICS] for metrics in shuffles]
    )
    log_measured = np.log([run.metrics[metric] for metric in FITTED_METRICS])
    several = len(shuffles) > 1
    shuffle_variance = log_simulated.var(axis=0, ddof=1) if several else np.zeros(len(FITTED_METRICS))
    return log_simulated.mean(axis=0) - log_measured, shuffle_variance * (1 + 1 / len(shuffles))


def _metric_value(run: MeasuredRun, simulated: MetricValues, metric: MetricName) -> float:
    """Return one simulated metric. Raises ConfigurationError where the simulator gives none."""
    if metric not in simulated:
        raise ConfigurationError(
            f"{run.label}: the simulated rack gives no {metric[1]} of {metric[0]}, so it cannot be fitted to "
            "the run; expected answers of two or more tokens. action=preflight with the settings of the run "
            "says what is wrong."
        )
    return simulated[metric]


def _require_effect(runs: Sequence[MeasuredRun], parameters: Sequence[Parameter]) -> None:
    """Raise ConfigurationError for a parameter of the dataset that no run depends on."""
    if all(run.recorded or run.spec.load.dataset.path for run in runs):
        for parameter in parameters:
            if parameter.of_dataset:
                raise ConfigurationError(
                    f"calibrate.parameters: {parameter.name} has no effect: the lengths of every run are "
                    "on record, or in a CSV; expected a run without. Leave it out."
                )


def _estimate(parameter: Parameter, u: float, sd_u: float) -> FittedParameter:
    """Return the estimate of one parameter at `u` with standard deviation `sd_u`."""
    low, high = (parameter.value(float(u + sign * 1.96 * sd_u)) for sign in (-1, 1))
    return FittedParameter(parameter, float(f"{parameter.value(u):.5g}"), low, high, float(sd_u))
