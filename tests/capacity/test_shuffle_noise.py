"""Test how far the rate that one full run holds varies between shuffles, on the simulated rack."""

from __future__ import annotations

import math
from statistics import median

import pytest
from support.composed import composed
from support.request_logs import spec

from tune.analysis.slo import slo_holds
from tune.capacity.shuffle_noise import SHUFFLES, shuffle_noise
from tune.sim.simulator import simulate_serving

pytestmark = pytest.mark.slow  # hundreds of simulated runs

SPEC = spec(
    "load.dataset.samples=2000",
    "load.min_duration_s=60.0",
    "load.min_queries=2000",
    "load.concatenate_permutation=false",
)
CALIBRATION = composed().cluster.calibration
RATES_QPS = [16.0 + 0.2 * step for step in range(14)]
OTHER_SHUFFLES = range(300, 330)


def holds(qps: float, shuffle_seed: int) -> bool:
    assert CALIBRATION
    load = SPEC.load.at(qps).model_copy(update={"shuffle_seed": shuffle_seed})
    return slo_holds(simulate_serving(SPEC.model_copy(update={"load": load}), CALIBRATION), SPEC.slo)


def test_most_other_shuffles_hold_a_rate_two_deviations_below_their_median() -> None:
    assert CALIBRATION
    highest = [
        max((qps for qps in RATES_QPS if holds(qps, seed)), default=RATES_QPS[0]) for seed in OTHER_SHUFFLES
    ]
    middle = median(highest)
    noise = shuffle_noise(SPEC, CALIBRATION, middle)
    assert noise.degrees_of_freedom == SHUFFLES // 2
    assert 0.005 < noise.sd < 0.06
    low, high = (middle * math.exp(sign * 2 * noise.sd) for sign in (-1, 1))
    assert sum(holds(low, seed) for seed in OTHER_SHUFFLES) >= 0.85 * len(OTHER_SHUFFLES)
    assert sum(holds(high, seed) for seed in OTHER_SHUFFLES) <= 0.15 * len(OTHER_SHUFFLES)


def test_a_distant_start_finds_the_same_noise() -> None:
    assert CALIBRATION
    near, far = (shuffle_noise(SPEC, CALIBRATION, qps) for qps in (17.2, 14.5))
    assert far.sd == pytest.approx(near.sd, rel=0.3)
