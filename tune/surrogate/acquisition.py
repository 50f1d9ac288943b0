"""Score configurations by expected improvement times probability of feasibility.

The model of every score is a mixture: the log capacity of a configuration is normal for each posterior sample
of the simulator's parameters, and all samples have equal weight.

Sources: expected improvement, Jones, Schonlau and Welch, J. Global Optimization 13, 1998; its product with a
probability of feasibility, Schonlau, Welch and Jones, IMS Lecture Notes 34, 1998.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.core.jit import compiled
from tune.surrogate.discrepancy import FORECAST_SD, squared_distances

PRIOR_CRASH_FRAC, PRIOR_CRASH_TRIALS = 0.08, 2.0
"""Mean of the beta prior of the crash probability, and how many trials that prior weighs. Chosen here."""

CRASH_LENGTHSCALE = 0.35
"""Length scale of the kernel that carries crashes to neighbours; settings are scaled to 0..1. Chosen here."""

EARLY_STOP_FRAC = 0.98
"""A configuration is not measured exactly when its rate is below this fraction of the best alternative's
predicted rate. Chosen on the development racks of benchmarks/search_synthetic_racks.py."""

CANDIDATE_RATES = 40
"""Points of the grid, even in log rate, on which the early-stop threshold is searched. Chosen here."""

NEGLIGIBLE_SDS = 6.0
"""An event this many standard deviations away counts as impossible: its probability is 1e-9."""


@compiled
def min_of_normals(log_mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the minimum of two independent normals, (samples, m) each.

    `log_mean` has shape (2, samples, m), `sd` (2, m).

    Source: Clark, Operations Research 9, 1961, who gives the maximum of two normals; signs are reversed here.
    """
    _, samples, count = log_mean.shape
    mean, min_sd = np.empty((samples, count)), np.empty((samples, count))
    for sample in range(samples):
        for index in range(count):
            first, first_sd, second_sd = log_mean[0, sample, index], sd[0, index], sd[1, index]
            difference = log_mean[1, sample, index] - first
            difference_sd = math.sqrt(first_sd**2 + second_sd**2)
            if abs(difference) > NEGLIGIBLE_SDS * difference_sd:
                mean[sample, index] = first + min(difference, 0.0)
                min_sd[sample, index] = first_sd if difference > 0 else second_sd
                continue
            density = (
                difference_sd * math.exp(-((difference / difference_sd) ** 2) / 2) / math.sqrt(2 * math.pi)
            )
            probability = _normal_cdf(difference / difference_sd)
            shift = difference * (1 - probability) - density
            square = (
                first_sd**2 * probability
                + (difference**2 + second_sd**2) * (1 - probability)
                - difference * density
            )
            mean[sample, index] = first + shift
            min_sd[sample, index] = math.sqrt(max(square - shift**2, 1e-8))
    return mean, min_sd


@compiled
def _normal_cdf(deviations: float) -> float:
    """Return the cumulative probability of a standard normal."""
    return 0.5 * math.erfc(-deviations / math.sqrt(2))


def expected_improvement(log_mean: FloatArray, sd: FloatArray, best: float | FloatArray) -> FloatArray:
    """Return the expected improvement over the rate `best` as a share of it, shape (m,).

    The log rate of a configuration is normal with `log_mean` and `sd`, both (samples, m). `best` is one rate,
    or the rate of each sample, shape (samples,). The result is averaged over samples.
    """
    return mean_excess(log_mean, sd, np.broadcast_to(np.log(best), len(log_mean)).copy())


@compiled
def mean_excess(log_mean: FloatArray, sd: FloatArray, log_best: FloatArray) -> FloatArray:
    """Return the mean over samples of the expected excess over the best rate, as a share of it, shape (m,).

    Source: E max(X - b, 0) = E[X] N(d + s) - b N(d) with d = (mean - ln b) / s for lognormal X (Black and
    Scholes, J. Political Economy 81, 1973).
    """
    samples, count = log_mean.shape
    total = np.zeros(count)
    for sample in range(samples):
        for index in range(count):
            excess, error = log_mean[sample, index] - log_best[sample], sd[sample, index]
            if excess < -NEGLIGIBLE_SDS * error - error**2:
                continue
            rate = math.exp(excess + error**2 / 2) * _normal_cdf(excess / error + error)
            total[index] += rate - _normal_cdf(excess / error)
    improvement: FloatArray = np.maximum(total / samples, 0.0)
    return improvement


def improvement_at_rates(
    log_mean: FloatArray, sd: FloatArray, best: float | FloatArray, rates_qps: FloatArray
) -> FloatArray:
    """Return the expected improvement of one run at each of `rates_qps` (k,), shape (m, k).

    The improvement of a run is P(capacity >= rate) x (rate / best - 1), a share of the rate `best`, which is
    one rate or that of each sample, shape (samples,). The log capacity is normal with `log_mean` (samples, m)
    and `sd` (samples, m) or (m,).
    """
    best = np.broadcast_to(best, len(log_mean))[:, None]
    improvement = np.zeros((log_mean.shape[1], len(rates_qps)))
    for index, qps in enumerate(rates_qps.tolist()):
        gain = np.maximum(qps / best - 1, 0.0)
        improvement[:, index] = (ndtr((log_mean - np.log(qps)) / sd) * gain).mean(0)
    return improvement


def feasibility_probability(features: FloatArray, tried: IntArray, crashed: BoolArray) -> FloatArray:
    """Estimate the probability that each configuration runs without a crash, shape (m,).

    `features` (m, settings) lie in 0..1. `tried` (n,) are the indices of tried configurations, and `crashed`
    (n,) says which of those crashed. The estimate is the mean of a beta distribution: a trial at distance d
    counts exp(-d^2 / 2 l^2), on top of PRIOR_CRASH_TRIALS trials of which PRIOR_CRASH_FRAC crashed.
    """
    if not len(tried):
        return np.full(len(features), 1 - PRIOR_CRASH_FRAC)
    kernel = np.exp(-squared_distances(features, features[tried]) / (2 * CRASH_LENGTHSCALE**2))
    crashes = PRIOR_CRASH_TRIALS * PRIOR_CRASH_FRAC + kernel @ crashed
    probability: FloatArray = 1 - crashes / (PRIOR_CRASH_TRIALS + kernel.sum(1))
    return probability


def early_stop_threshold_qps(log_mean: FloatArray, sd: FloatArray, alternatives_qps: FloatArray) -> float:
    """Return the rate below which a configuration need not be measured exactly; 0 if there is none.

    Suppose the configuration is observed at some rate, with error FORECAST_SD. Bayes' rule then weighs the
    samples, and the weighted mean of `alternatives_qps` (samples, m) predicts the alternatives. The threshold
    is the highest grid rate up to which every rate is below EARLY_STOP_FRAC of the best alternative's
    prediction. `log_mean` and `sd` (samples,) describe the log rate of the configuration.
    """
    error = np.hypot(sd, FORECAST_SD)
    low, high = (log_mean - 2 * error).min(), (log_mean + 2 * error).max()
    log_rates = np.linspace(low, high, CANDIDATE_RATES)
    log_weight = -0.5 * ((log_rates[:, None] - log_mean) / error) ** 2 - np.log(error)
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    predicted = (weight / weight.sum(1, keepdims=True)) @ alternatives_qps
    dominated = np.exp(log_rates) < EARLY_STOP_FRAC * predicted.max(1, initial=0.0)
    count = len(dominated) if dominated.all() else int(dominated.argmin())
    return float(np.exp(log_rates[count - 1])) if count else 0.0
