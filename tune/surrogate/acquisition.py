"""What is worth a deployment: expected improvement over the best, times the chance that it runs at all; and
which rate is worth an exact answer."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.core.jit import compiled
from tune.surrogate.discrepancy import FORECAST_SD, squared_distances

CRASH_FRAC, CRASH_WEIGHT = 0.08, 2.0
"""What share of the configurations is thought to crash before any did, and how many trials that is worth."""

CRASH_LENGTHSCALE = 0.35
"""How far a crash tells of others, where each setting goes from 0 to 1. Our choice."""

EARLY_STOP_FRAC = 0.98
"""What comes to less than this share of what another is expected to come to is not worth an exact answer. Our
choice, by the development racks of benchmarks/search_synthetic_racks.py."""

CANDIDATE_RATES = 40
"""From the lowest to the highest rate that a configuration may come to. Our choice."""

NEGLIGIBLE_SDS = 6.0
"""What is so many standard deviations off is not thought possible: its chance is 1e-9."""


@compiled
def min_of_normals(ln_mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the lower of two independent normals, (racks, m) each; `ln_mean` (2,
    racks, m), and `sd` (2, m).

    Formula: Clark, Operations Research 9, 1961, for the greater of two, with signs turned.
    """
    _, racks, count = ln_mean.shape
    mean, of_both = np.empty((racks, count)), np.empty((racks, count))
    for rack in range(racks):
        for at in range(count):
            low, low_sd, high_sd = ln_mean[0, rack, at], sd[0, at], sd[1, at]
            higher, apart = ln_mean[1, rack, at] - low, math.sqrt(low_sd**2 + high_sd**2)
            if abs(higher) > NEGLIGIBLE_SDS * apart:
                mean[rack, at] = low + min(higher, 0.0)
                of_both[rack, at] = low_sd if higher > 0 else high_sd
                continue
            density = apart * math.exp(-((higher / apart) ** 2) / 2) / math.sqrt(2 * math.pi)
            chance = _normal_cdf(higher / apart)
            gap = higher * (1 - chance) - density
            square = low_sd**2 * chance + (higher**2 + high_sd**2) * (1 - chance) - higher * density
            mean[rack, at], of_both[rack, at] = low + gap, math.sqrt(max(square - gap**2, 1e-8))
    return mean, of_both


@compiled
def _normal_cdf(deviations: float) -> float:
    return 0.5 * math.erfc(-deviations / math.sqrt(2))


@compiled
def expected_improvement(ln_mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """Expected improvement over a rate of `best`, as a share of it, (m,).

    ln of the rate of each configuration is normal, with `ln_mean` and `sd` (racks, m) on equally probable
    racks. Formula: E max(X - b, 0) = E[X] N(d + s) - b N(d), d = (mean - ln b) / s, for lognormal X (Black
    and Scholes 1973); averaged over racks.
    """
    racks, count = ln_mean.shape
    ln_best, found = math.log(best), np.zeros(count)
    for rack in range(racks):
        for at in range(count):
            above, error = ln_mean[rack, at] - ln_best, sd[rack, at]
            if above < -NEGLIGIBLE_SDS * error - error**2:
                continue
            rate = math.exp(above + error**2 / 2) * _normal_cdf(above / error + error)
            found[at] += rate - _normal_cdf(above / error)
    gain: FloatArray = np.maximum(found / racks, 0.0)
    return gain


def improvement_at_rates(
    ln_mean: FloatArray, sd: FloatArray, best: float, rates_qps: FloatArray
) -> FloatArray:
    """The same, (m, k), of one run at each of `rates_qps` (k,), whose rate counts where it is held.

    Formula: the chance that the boundary is no lower than the rate, times what the rate is above `best`.
    """
    found = np.zeros((ln_mean.shape[1], len(rates_qps)))
    for at, qps in enumerate(rates_qps.tolist()):
        held = ndtr((ln_mean - np.log(qps)) / sd).mean(0)
        found[:, at] = np.maximum(held * (qps / best - 1), 0.0)
    return found


def feasibility_probability(features: FloatArray, tried: IntArray, crashed: BoolArray) -> FloatArray:
    """The chance that each configuration runs, (m,), by those `tried` (n,) near it, of which some `crashed`.

    Formula: the mean of a beta distribution, each trial counted by its nearness exp(-d^2 / 2 l^2) on top of
    CRASH_WEIGHT trials of which CRASH_FRAC crashed.
    """
    if not len(tried):
        return np.full(len(features), 1 - CRASH_FRAC)
    near = np.exp(-squared_distances(features, features[tried]) / (2 * CRASH_LENGTHSCALE**2))
    crashes = CRASH_WEIGHT * CRASH_FRAC + near @ crashed
    found: FloatArray = 1 - crashes / (CRASH_WEIGHT + near.sum(1))
    return found


def early_stop_threshold_qps(ln_mean: FloatArray, sd: FloatArray, others_qps: FloatArray) -> float:
    """Below this rate, whatever a configuration comes to is less than EARLY_STOP_FRAC of what the best of others
    is then expected to come to; 0 where there is no such rate.

    ln of its rate is normal, with `ln_mean` and `sd` (racks,) on equally probable racks, on which others are
    expected to come to `others_qps` (racks, m). It will be known to FORECAST_SD, which tells what racks are
    probable (Bayes).
    """
    error = np.hypot(sd, FORECAST_SD)
    low, high = (ln_mean - 2 * error).min(), (ln_mean + 2 * error).max()
    ln_rates = np.linspace(low, high, CANDIDATE_RATES)
    ln_weight = -0.5 * ((ln_rates[:, None] - ln_mean) / error) ** 2 - np.log(error)
    weight = np.exp(ln_weight - ln_weight.max(1, keepdims=True))
    expected = (weight / weight.sum(1, keepdims=True)) @ others_qps
    outdone = np.exp(ln_rates) < EARLY_STOP_FRAC * expected.max(1, initial=0.0)
    count = len(outdone) if outdone.all() else int(outdone.argmin())
    return float(np.exp(ln_rates[count - 1])) if count else 0.0
