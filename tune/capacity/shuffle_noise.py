"""Estimate how far the rate that one full run holds varies from shuffle to shuffle, with the simulator.

The p99 of a run depends on which long prompts meet, so a run in one shuffle holds a higher rate than a run in
another. Capacity is the rate that half of all shuffles hold; what a single run holds varies around it.
"""

from __future__ import annotations

import math
from statistics import median

from tune.analysis.repeated_capacities import ShuffleNoise
from tune.analysis.slo import slo_holds
from tune.capacity.simulator_forecast import SHUFFLES as CAPACITY_SHUFFLES
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

SHUFFLES = 16
"""Simulated shuffles. The half below the median give the deviation to 25 %. Formula: 1 / sqrt(2 n)."""

FIRST_SHUFFLE = 75
"""First shuffle seed: none of those that a capacity search simulates."""

RATE_STEP, RATE_TOLERANCE = 1.02, 1.004
"""Ratio of the first two rates of a search, and of the last two. Chosen here."""

MAX_RATIO = 1.5
"""Rates beyond this ratio to the capacity are not tried."""


def shuffle_noise(spec: TrialSpec, calibration: Calibration, capacity_qps: float) -> ShuffleNoise:
    """Return the deviation of the rate that one full run holds from the estimated capacity.

    Parameters
    ----------
    spec
        The trial, with full runs.
    calibration
        The calibration that resembles the rack, such as the one that a capacity search fitted.
    capacity_qps
        Its capacity, about which rates are tried.

    Returns
    -------
    ShuffleNoise
        The root mean square of the deviations below the median: unlucky shuffles lie farther from it than
        lucky ones, and they decide what can be guaranteed. It includes the error of a capacity that is the
        median of CAPACITY_SHUFFLES shuffles, which has pi / (2 n) of the variance of one shuffle.
    """
    logs = sorted(
        math.log(_highest_qps(spec, calibration, capacity_qps, FIRST_SHUFFLE + index))
        for index in range(SHUFFLES)
    )
    below = [median(logs) - log for log in logs[: SHUFFLES // 2]]
    variance = math.fsum(each**2 for each in below) / len(below)
    return ShuffleNoise(math.sqrt(variance * (1 + math.pi / (2 * CAPACITY_SHUFFLES))), len(below))


def _highest_qps(spec: TrialSpec, calibration: Calibration, start_qps: float, shuffle_seed: int) -> float:
    """Return the highest rate that a simulated full run in one shuffle holds, near `start_qps`."""

    def holds(qps: float) -> bool:
        """Return whether a run at `qps` holds."""
        load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": shuffle_seed})
        return slo_holds(simulate_serving(spec.model_copy(update={"load": load}), calibration), spec.slo)

    low = high = start_qps
    step = RATE_STEP
    if holds(start_qps):
        while holds(high := high * step) and high < start_qps * MAX_RATIO:
            low, step = high, step**1.5
    else:
        while not holds(low := low / step) and low > start_qps / MAX_RATIO:
            high, step = low, step**1.5
    while high / low > RATE_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return math.sqrt(low * high)
