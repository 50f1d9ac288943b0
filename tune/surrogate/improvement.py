"""Compute by what share each configuration is expected to raise the best rate, from a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.surrogate.acquisition import expected_improvement, feasibility_probability, improvement_at_rates
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.observation import Observation, verified_qps
from tune.surrogate.prediction import Prediction

MISMATCH_MIN_OBSERVATIONS = 3
"""Number of observations from which a Gaussian process without a serving model may be fitted. Chosen on the
development racks of benchmarks/search_synthetic_racks.py."""

RATE_GRID_POINTS = 24
"""Number of rates at which a configuration is scored; the chosen one is scored at all rates. Chosen here."""


def feasibility(features: FloatArray, observations: Sequence[Observation]) -> FloatArray:
    """Return the probability that each configuration runs, shape (n,)."""
    finished = [observation for observation in observations if observation.status != "pending"]
    tried = np.array([observation.index for observation in finished], int)
    crashed = np.array([observation.status == "crashed" for observation in finished], bool)
    return feasibility_probability(features, tried, crashed)


def rates_above_verified(rates_qps: FloatArray, observations: Sequence[Observation]) -> FloatArray:
    """Return those of `rates_qps` above the highest one at which the SLO held, queries/s."""
    return rates_qps[rates_qps > verified_qps(observations)]


def improvement(
    prediction: Prediction,
    observations: Sequence[Observation],
    features: FloatArray,
    rates_qps: FloatArray | None,
) -> FloatArray:
    """Return the acquisition value of every configuration, a share of the best rate.

    The value is expected improvement times probability of feasibility, and 0 for observed configurations.
    Each sample compares what it predicts: an error that all configurations share, such as that of the
    frontend, promises no gain. The rivals are the best measured configuration and those whose trials run.

    Parameters
    ----------
    prediction
        Prediction from `observations`.
    observations
        All observations, those of running trials among them.
    features
        Settings of all configurations, scaled to 0..1, shape (n, settings).
    rates_qps
        Rising rates, of which a deployment is measured at one: the value is then the highest over about
        RATE_GRID_POINTS of them. None if capacities are searched for.

    Returns
    -------
    FloatArray
        Shape (n,).
    """
    if rates_qps is not None:
        rates = rates_above_verified(rates_qps, observations)
        grid = rates[:: len(rates) // RATE_GRID_POINTS + 1]
        every = np.arange(len(features))
        runs = improvement_of_runs(
            prediction, observations, features, every, grid, lowest_qps=float(rates_qps[0])
        )
        highest: FloatArray = runs.max(1, initial=0.0)
        return highest
    expected = prediction.expected_capacity_qps
    measured = [observation.index for observation in observations if observation.status == "measured"]
    rivals = [observation.index for observation in observations if observation.status == "pending"]
    if measured:
        rivals.append(max(measured, key=lambda index: float(expected[index])))
    least = 0.0 if measured else float(expected[prediction.is_predicted].min())
    best_by_sample = prediction.capacity_qps[:, rivals].max(1, initial=least)
    gain = expected_improvement(prediction.log_mean, prediction.sd, best_by_sample)
    gain = gain * feasibility(features, observations)
    gain[[observation.index for observation in observations]] = 0.0
    return gain


def improvement_of_runs(
    prediction: Prediction,
    observations: Sequence[Observation],
    features: FloatArray,
    indices: IntArray,
    rates_qps: FloatArray,
    *,
    lowest_qps: float,
) -> FloatArray:
    """Return the acquisition value of single runs.

    It is 0 from a rate on that violated the SLO, crashed or gave an invalid measurement, and up to the rate
    of a run that is pending. That run raises the best rate of the samples that predict it to hold.

    Parameters
    ----------
    prediction, observations, features
        As `improvement` takes them.
    indices
        Configurations of the runs, shape (m,).
    rates_qps
        Rates of the runs, shape (k,).
    lowest_qps
        Lowest rate that may be tried: half of it counts as the best as long as none has held.

    Returns
    -------
    FloatArray
        Shape (m, k).
    """
    missed_qps = np.full(len(features), np.inf)
    for observation in observations:
        if observation.status in ("crashed", "below", "invalid"):
            missed_qps[observation.index] = min(missed_qps[observation.index], observation.qps)
    running = [observation for observation in observations if observation.status == "pending"]
    pending_qps = np.zeros(len(features))
    best = np.full(len(prediction.sd), verified_qps(observations) or lowest_qps / 2)
    for run in running:
        pending_qps[run.index] = max(pending_qps[run.index], run.qps)
        holds = prediction.capacity_qps[:, run.index] >= run.qps
        best = np.where(holds, np.maximum(best, run.qps), best)
    log_mean, sd = prediction.log_mean[:, indices], prediction.sd[:, indices]
    gain = improvement_at_rates(log_mean, sd, best, rates_qps)
    gain *= feasibility(features, observations)[indices, None]
    known = (rates_qps >= missed_qps[indices, None]) | (rates_qps <= pending_qps[indices, None])
    return np.where(known, 0.0, gain)


def mismatch_improvement(
    prediction: Prediction, observations: Sequence[Observation], features: FloatArray
) -> FloatArray | None:
    """Return the acquisition value of every configuration from a plain Gaussian process, shape (n,).

    None where too little was observed. The arguments are those of `improvement`.
    """
    running = [
        replace(item, status="forecast", qps=float(prediction.expected_capacity_qps[item.index]))
        for item in observations
        if item.status == "pending"
    ]
    finite = [item for item in observations if item.status in ("measured", "forecast", "below")] + running
    best_qps = max((item.qps for item in finite if item.status == "measured"), default=0.0)
    if len(finite) < MISMATCH_MIN_OBSERVATIONS or not best_qps:
        return None
    indices, log_qps = np.array([item.index for item in finite]), np.log([item.qps for item in finite])
    gain = gp_expected_improvement(features, indices, log_qps, best_qps)
    return gain * feasibility(features, observations)
