"""Parameters of the simulated rack from measured runs: penalised least squares on logarithms of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from tune.calibrate.compared_metrics import FITTED_METRICS
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import Parameter, Values
from tune.calibrate.replay import FIT_SEEDS, simulate_run
from tune.core.arrays import FloatArray
from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration

MODEL_ERROR_FRAC = 0.02
"""How near the rack's figures can come to a real one's. Our choice: the least mean error of its step times
(docs/benchmarks.md)."""

IDENTIFIED_SHARE = 0.5
"""A parameter counts as identified when the data shrink its standard deviation below this share of the
prior's."""

_STEPS_U = (0.5, 0.1)
"""Half the width of the slopes of each round: wide ones lead past the ripples that single requests make, and
off a bound."""
_SD_ROUNDS = 4

_TOLERANCE = 1e-3
_MOST_STEPS = 25
_AT_BOUND_U = 1e-3
_INSIDE_U = 0.1

Progress = Callable[[float], None]
"""Told after every evaluation: the root mean square of ln(simulated / measured) over the fitted figures."""


@dataclass(frozen=True)
class FittedParameter:
    """`low` and `high` bound the value with 95 %, prior included; `prior_share` is its standard deviation
    over that of its prior: 1 where the data say nothing."""

    parameter: Parameter
    value: float
    low: float
    high: float
    prior_share: float

    @property
    def identified(self) -> bool:
        return self.prior_share < IDENTIFIED_SHARE

    @property
    def at_bound(self) -> bool:
        bounds = self.parameter.bounds
        nearest = min(
            abs(self.parameter.u(self.value) - self.parameter.u(end)) for end in (bounds.low, bounds.high)
        )
        return nearest < _AT_BOUND_U


def fit(
    runs: Sequence[MeasuredRun],
    calibration: Calibration,
    parameters: Sequence[Parameter],
    progress: Progress,
) -> tuple[FittedParameter, ...]:
    """The values of `parameters` that bring the rack nearest to the fitted figures of `runs`.

    Minimises the sum over runs and figures of (mean over FIT_SEEDS of ln(simulated / measured))^2 / e^2 plus
    the sum of u^2, the priors. e^2 is MODEL_ERROR_FRAC^2 and, where lengths are not on record, the variance
    that their order gives a single run; it is taken at the start and once more at the first optimum. Every
    evaluation uses the same seeds. Raises ConfigurationError where a parameter of the dataset meets recorded lengths
    only, or the rack answers nothing.
    """
    _require_effect(runs, parameters)
    problem = _Problem(runs, calibration, parameters, progress)
    u = np.zeros(len(parameters))
    for step_u in _STEPS_U:
        expected = np.sqrt(MODEL_ERROR_FRAC**2 + problem.log_ratios(u)[1])
        u = problem.solve(u, expected, step_u)
    sd_u = problem.posterior_sd(u, expected)
    return tuple(_fitted(*each) for each in zip(parameters, u, sd_u, strict=True))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The misfit as a function of u, shape (parameters,)."""

    runs: Sequence[MeasuredRun]
    calibration: Calibration
    parameters: Sequence[Parameter]
    progress: Progress

    def solve(self, u: FloatArray, expected: FloatArray, step_u: float) -> FloatArray:
        """The best u from `u` on, for log ratios that are sure to within `expected`, of their shape."""
        low, high = self._ends()
        steps = np.full(len(u), step_u)
        found = least_squares(
            lambda at: np.concatenate([self.log_ratios(at)[0] / expected, at]),
            np.clip(u, low + _INSIDE_U, high - _INSIDE_U),
            jac=lambda at: np.concatenate([self._slopes(at, steps) / expected[:, None], np.eye(len(at))]),
            bounds=(low, high),
            xtol=_TOLERANCE,
            ftol=_TOLERANCE,
            max_nfev=_MOST_STEPS,
        )
        best: FloatArray = found.x
        return best

    def posterior_sd(self, u: FloatArray, expected: FloatArray) -> FloatArray:
        """Standard deviations of `u`, prior included, widened where ratios exceed `expected`.

        They are those of a linear problem whose slopes are taken over these deviations themselves: a queue
        that boils over within reach binds a parameter, though nearby nothing moves.
        """
        excess = max(1.0, float(np.mean(np.square(self.log_ratios(u)[0] / expected))))
        sd_u = np.ones(len(u))
        for _ in range(_SD_ROUNDS):
            slopes = self._slopes(u, np.maximum(sd_u, _STEPS_U[-1])) / expected[:, None]
            information = slopes.T @ slopes / excess + np.eye(len(u))
            sd_u = np.sqrt(sd_u * np.sqrt(np.diag(np.linalg.inv(information))))
        return sd_u

    def log_ratios(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ln(simulated / measured) of every run and fitted figure, shape (runs x figures,), as a mean over
        seeds, and the variance of one measured run about it: 0 where requests are on record."""
        values = values_at(self.parameters, u)
        each = [_log_ratios(run, self.calibration, values) for run in self.runs]
        means, variances = (np.concatenate(part) for part in zip(*each, strict=True))
        self.progress(float(np.sqrt(np.mean(np.square(means)))))
        return means, variances

    def _slopes(self, u: FloatArray, steps: FloatArray) -> FloatArray:
        """Central differences of the log ratios, shape (runs x figures, parameters), within the bounds."""
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
        low, high = (
            np.array([p.u(getattr(p.bounds, end)) for p in self.parameters]) for end in ("low", "high")
        )
        return low, high


def values_at(parameters: Sequence[Parameter], u: FloatArray) -> Values:
    return {parameter.name: parameter.value(float(at)) for parameter, at in zip(parameters, u, strict=True)}


def fitted_values(fitted: Sequence[FittedParameter]) -> Values:
    return {one.parameter.name: one.value for one in fitted}


def _log_ratios(run: MeasuredRun, calibration: Calibration, values: Values) -> tuple[FloatArray, FloatArray]:
    orders = simulate_run(run, calibration, values, FIT_SEEDS)
    logs = np.log([[_figure(run, order, figure) for figure in FITTED_METRICS] for order in orders])
    measured = np.log([run.figures[figure] for figure in FITTED_METRICS])
    of_order = logs.var(axis=0, ddof=1) if len(orders) > 1 else np.zeros(len(FITTED_METRICS))
    return logs.mean(axis=0) - measured, of_order * (1 + 1 / len(orders))


def _figure(run: MeasuredRun, found: Mapping[tuple[str, str], float], figure: tuple[str, str]) -> float:
    if figure not in found:
        raise ConfigurationError(
            f"{run.label}: the simulated rack gives no {figure[1]} of {figure[0]}, so it cannot be fitted to "
            "the run; expected answers of two or more tokens. action=preflight with the settings of the run "
            "says what is wrong."
        )
    return found[figure]


def _require_effect(runs: Sequence[MeasuredRun], parameters: Sequence[Parameter]) -> None:
    if all(run.asked or run.spec.load.dataset.path for run in runs):
        for parameter in parameters:
            if parameter.of_dataset:
                raise ConfigurationError(
                    f"calibrate.parameters: {parameter.name} has no effect: the lengths of every run are "
                    "on record, or in a CSV; expected a run without. Leave it out."
                )


def _fitted(parameter: Parameter, u: float, sd_u: float) -> FittedParameter:
    low, high = (parameter.value(float(u + sign * 1.96 * sd_u)) for sign in (-1, 1))
    return FittedParameter(parameter, float(f"{parameter.value(u):.5g}"), low, high, float(sd_u))
