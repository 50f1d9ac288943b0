"""Parameters of the simulated rack from measured runs: penalised least squares on logarithms of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from tune.calibrate.figures import FITTED
from tune.calibrate.parameters import Parameter, Values
from tune.calibrate.runs import MeasuredRun
from tune.calibrate.simulated import FIT_SEEDS, simulated
from tune.errors import FixCommand
from tune.results.requests import FloatArray
from tune.spec.cluster import Calibration

MODEL_ERROR_FRAC = 0.02
"""How near the rack's figures can come to a real one's. Our choice: the least mean error of its step times
(docs/benchmarks.md)."""

IDENTIFIED_SHARE = 0.5
"""A parameter counts as identified when the data shrink its standard deviation below this share of the
prior's."""

_ROUNDS = 2
_STEP_U = 0.1
_TOLERANCE = 1e-4
_MOST_STEPS = 25
_AT_BOUND_U = 1e-3

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
    evaluation uses the same seeds, and slopes are central differences over a tenth of a prior width, above
    the grain of single requests. Standard deviations are those of the linearised problem, widened where
    residuals exceed e. Raises FixCommand where a parameter of the dataset meets recorded lengths only, or the
    rack answers nothing.
    """
    _require_effect(runs, parameters)
    low = np.array([parameter.u(parameter.bounds.low) for parameter in parameters])
    high = np.array([parameter.u(parameter.bounds.high) for parameter in parameters])

    def log_ratios(u: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean, variance = _log_ratios(runs, calibration, values_at(parameters, u))
        progress(float(np.sqrt(np.mean(np.square(mean)))))
        return mean, variance

    def slopes(u: FloatArray) -> FloatArray:
        columns = []
        for index in range(len(u)):
            below, above = u.copy(), u.copy()
            below[index] = max(u[index] - _STEP_U, low[index])
            above[index] = min(u[index] + _STEP_U, high[index])
            rise = log_ratios(above)[0] - log_ratios(below)[0]
            columns.append(rise / (above[index] - below[index]))
        return np.stack(columns, axis=1)

    u = np.zeros(len(parameters))
    for _ in range(_ROUNDS):
        expected = np.sqrt(MODEL_ERROR_FRAC**2 + log_ratios(u)[1])
        found = least_squares(
            lambda at, e=expected: np.concatenate([log_ratios(at)[0] / e, at]),
            np.clip(u, low + 1e-6, high - 1e-6),
            jac=lambda at, e=expected: np.concatenate([slopes(at) / e[:, None], np.eye(len(at))]),
            bounds=(low, high),
            xtol=_TOLERANCE,
            ftol=_TOLERANCE,
            max_nfev=_MOST_STEPS,
        )
        u = found.x
    sd_u = _posterior_sd(found.jac[: -len(u)], found.fun[: -len(u)])
    return tuple(_fitted(*each) for each in zip(parameters, u, sd_u, strict=True))


def values_at(parameters: Sequence[Parameter], u: FloatArray) -> Values:
    return {parameter.name: parameter.value(float(at)) for parameter, at in zip(parameters, u, strict=True)}


def values_of(fitted: Sequence[FittedParameter]) -> Values:
    return {one.parameter.name: one.value for one in fitted}


def _log_ratios(
    runs: Sequence[MeasuredRun], calibration: Calibration, values: Values
) -> tuple[FloatArray, FloatArray]:
    """ln(simulated / measured) of every run and fitted figure, shape (runs x figures,), as a mean over seeds,
    and the variance of one measured run about that mean: 0 where requests are on record."""
    means, variances = [], []
    for run in runs:
        orders = simulated(run, calibration, values, FIT_SEEDS)
        ratios = np.log([[_figure(run, order, figure) for figure in FITTED] for order in orders])
        means.append(ratios.mean(axis=0) - np.log([run.figures[figure] for figure in FITTED]))
        several = len(orders) > 1
        of_order = ratios.var(axis=0, ddof=1) if several else np.zeros(len(FITTED))
        variances.append(of_order * (1 + 1 / len(orders)))
    return np.concatenate(means), np.concatenate(variances)


def _figure(run: MeasuredRun, found: Mapping[tuple[str, str], float], figure: tuple[str, str]) -> float:
    if figure not in found:
        raise FixCommand(
            f"{run.label}: the simulated rack gives no {figure[1]} of {figure[0]}, so it cannot be fitted to "
            "the run; expected answers of two or more tokens. action=preflight with the settings of the run "
            "says what is wrong."
        )
    return found[figure]


def _require_effect(runs: Sequence[MeasuredRun], parameters: Sequence[Parameter]) -> None:
    if all(run.asked or run.spec.load.dataset.path for run in runs):
        for parameter in parameters:
            if parameter.of_dataset:
                raise FixCommand(
                    f"calibrate.parameters: {parameter.name} has no effect: the lengths of every run are "
                    "on record, or in a CSV; expected a run without. Leave it out."
                )


def _posterior_sd(slopes: FloatArray, residuals: FloatArray) -> FloatArray:
    """Standard deviation of each u, shape (parameters,), given the slopes of the residuals in units of e."""
    excess = max(1.0, float(np.mean(np.square(residuals))))
    information = slopes.T @ slopes / excess + np.eye(slopes.shape[1])
    return np.sqrt(np.diag(np.linalg.inv(information)))


def _fitted(parameter: Parameter, u: float, sd_u: float) -> FittedParameter:
    low, high = (parameter.value(u + sign * 1.96 * sd_u) for sign in (-1, 1))
    return FittedParameter(parameter, float(f"{parameter.value(u):.5g}"), low, high, sd_u)
