"""Fit factors on the simulator's calibration under each of a few hypotheses, by least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.threads import map_ahead
from tune.spec.cluster import Calibration

FACTOR_LOG_SD = {"prefill_scale": 0.15, "decode_scale": 0.15, "ttft_overhead_s": 1.0}
"""Calibration parameters that are fitted by a factor, and the prior standard deviation of its log. Chosen
here."""

SLOW_WORKER_SCALE = 1.14
"""Slowdown of the last decode worker in the hypothesis that it is slow. It explains the TPOT of NVIDIA's
MLPerf Inference v5.1 run as well as the hypothesis of a second read of the weights does."""

SLOW_HEAD_SCALE = 1.1
"""Slowdown of the workers on the frontend's node in the hypothesis that the frontend slows them. Chosen
here."""

HYPOTHESIS_SWITCH_COST = 1.0
"""By how much another hypothesis must lower the sum of squares to be preferred to the calibration's."""

_MAX_EVALUATIONS, _FIT_TOLERANCE = 12, 1e-3
"""Largest number of steps of the least-squares fit, and the relative change at which it ends. Chosen here."""

_LOG_SCALE, _DIFFERENCE_LOG_STEP = 0.15, 0.01
"""Radius of the first step and step of the finite differences, in log factors. Differences are this large
because simulated percentiles are step functions of the factors."""


@dataclass(frozen=True, eq=False)
class HypothesisFit:
    """Hold one hypothesis, its fitted log factors (3,), and the sum of squares that they leave."""

    hypothesis: dict[str, float]
    log_factors: FloatArray
    cost: float = 0.0


def initial_fits(calibration: Calibration) -> list[HypothesisFit]:
    """Return a fit without factors for the calibration's own hypothesis, then for every other one."""
    return [
        HypothesisFit(hypothesis, np.zeros(len(FACTOR_LOG_SD))) for hypothesis in _hypotheses(calibration)
    ]


def best_fit(fits: Sequence[HypothesisFit]) -> HypothesisFit:
    """Return the fit of least cost; the first one, the calibration's own, has an advantage."""
    first, *others = fits
    return min([first, *others], key=lambda fit: fit.cost + HYPOTHESIS_SWITCH_COST * (fit is not first))


def refined(fit: HypothesisFit, residual: Callable[[FloatArray], FloatArray], threads: int) -> HypothesisFit:
    """Refine `fit` by nonlinear least squares (scipy.optimize.least_squares, trust region reflective).

    `residual` returns the residuals of given log factors in standard deviations; it is called in `threads`
    threads.
    """
    known: dict[bytes, FloatArray] = {}

    def evaluate(factors: FloatArray) -> FloatArray:
        """Return the residuals; those of a point are computed once."""
        key = factors.tobytes()
        if key not in known:
            known[key] = residual(factors)
        return known[key]

    def slopes(factors: FloatArray) -> FloatArray:
        """Return the slopes of the residuals by finite differences, shape (residuals, factors)."""
        nudged = map_ahead(residual, factors + _DIFFERENCE_LOG_STEP * np.eye(len(factors)), threads)
        return np.stack([(each - evaluate(factors)) / _DIFFERENCE_LOG_STEP for each in nudged], 1)

    tolerances = dict.fromkeys(("ftol", "xtol", "gtol"), _FIT_TOLERANCE)
    from scipy.optimize import least_squares  # noqa: PLC0415  (only a capacity search fits anything)

    solution = least_squares(
        evaluate, fit.log_factors, slopes, x_scale=_LOG_SCALE, max_nfev=_MAX_EVALUATIONS, **tolerances
    )
    return HypothesisFit(fit.hypothesis, solution.x, float(2 * solution.cost))


def _hypotheses(calibration: Calibration) -> tuple[dict[str, float], ...]:
    """Return the calibration's own hypothesis, then every other one that differs from it."""
    reads = 0.0 if calibration.large_batch_weight_reads else 1.0
    others: list[dict[str, float]] = [{"large_batch_weight_reads": reads}]
    if calibration.last_decode_worker_scale == 1:
        others.append({"last_decode_worker_scale": SLOW_WORKER_SCALE})
    if calibration.head_node_scale == 1:
        others.append({"head_node_scale": SLOW_HEAD_SCALE})
    return ({}, *others)


def scaled(calibration: Calibration, log_factors: FloatArray) -> dict[str, float]:
    """Return the calibration parameters with their factors applied."""
    return {
        name: getattr(calibration, name) * float(np.exp(log_factor))
        for name, log_factor in zip(FACTOR_LOG_SD, log_factors, strict=True)
    }
