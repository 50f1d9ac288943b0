"""What is worth a deployment: expected improvement over the best, times the chance that it runs at all."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from tune.belief.discrepancy import squares
from tune.results.requests import BoolArray, FloatArray, IntArray

CRASH_FRAC, CRASH_WEIGHT = 0.08, 2.0
"""What share of the configurations is thought to crash before any did, and how many trials that is worth."""

CRASH_LENGTH = 0.35
"""How far a crash tells of others, where each setting goes from 0 to 1. Our choice."""


def lower_of_two(ln_mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the lower of two independent normals, shape (...) each; `ln_mean` (2,
    ...), and `sd` of the same shape or one that is spread to it.

    Formula: Clark, Operations Research 9, 1961, for the greater of two, with signs turned.
    """
    (low, high), (low_sd, high_sd) = ln_mean, sd
    apart = np.sqrt(low_sd**2 + high_sd**2)
    ratio = (high - low) / apart
    density = apart * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    chance = ndtr(ratio)
    gap = (high - low) * (1 - chance) - density
    square = low_sd**2 * chance + ((high - low) ** 2 + high_sd**2) * (1 - chance) - (high - low) * density
    return low + gap, np.sqrt(np.maximum(square - gap**2, 1e-8))


def expected_gain(ln_mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """Expected improvement over a rate of `best`, as a share of it, (m,).

    ln of the rate of each configuration is normal, with `ln_mean` and `sd` (racks, m) on equally probable
    racks. Formula: E max(X - b, 0) = E[X] N(d + s) - b N(d), d = (mean - ln b) / s, for lognormal X (Black
    and Scholes 1973); averaged over racks.
    """
    above = (ln_mean - np.log(best)) / sd
    gain = np.exp(ln_mean + sd**2 / 2) * ndtr(above + sd) - best * ndtr(above)
    found: FloatArray = gain.mean(0) / best
    return np.maximum(found, 0.0)


def gain_at_rates(ln_mean: FloatArray, sd: FloatArray, best: float, rates_qps: FloatArray) -> FloatArray:
    """The same, (m, k), of one run at each of `rates_qps` (k,), whose rate counts where it is held.

    Formula: the chance that the boundary is no lower than the rate, times what the rate is above `best`.
    """
    found = np.zeros((ln_mean.shape[1], len(rates_qps)))
    for at, qps in enumerate(rates_qps.tolist()):
        held = ndtr((ln_mean - np.log(qps)) / sd).mean(0)
        found[:, at] = np.maximum(held * (qps / best - 1), 0.0)
    return found


def chance_to_run(features: FloatArray, tried: IntArray, crashed: BoolArray) -> FloatArray:
    """The chance that each configuration runs, (m,), by those `tried` (n,) near it, of which some `crashed`.

    Formula: the mean of a beta distribution, each trial counted by its nearness exp(-d^2 / 2 l^2) on top of
    CRASH_WEIGHT trials of which CRASH_FRAC crashed.
    """
    if not len(tried):
        return np.full(len(features), 1 - CRASH_FRAC)
    near = np.exp(-squares(features, features[tried]) / (2 * CRASH_LENGTH**2))
    crashes = CRASH_WEIGHT * CRASH_FRAC + near @ crashed
    found: FloatArray = 1 - crashes / (CRASH_WEIGHT + near.sum(1))
    return found
