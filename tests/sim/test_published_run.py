"""Test the simulator against NVIDIA's MLPerf Inference v5.1 run of the reference configuration."""

from __future__ import annotations

import numpy as np
import pytest
from support.sim_trials import make_trial, tpot_s, ttft_s

from tune.sim.simulator import simulate_serving


def test_reference_trial_holds_its_slo() -> None:
    log = simulate_serving(*make_trial())
    assert len(log) == 16_626
    assert np.percentile(ttft_s(log), 99) <= 4.5
    assert np.percentile(tpot_s(log), 99) <= 0.080


PUBLISHED = {
    "ttft": {
        None: (1.5216, 0.06),
        50: (1.3899, 0.06),
        90: (2.5083, 0.06),
        95: (2.965, 0.06),
        99: (4.2158, 0.08),
    },
    "tpot": {None: (0.04834, 0.05), 50: (0.0452, 0.05), 90: (0.05804, 0.05), 99: (0.05902, 0.05)},
    "latency": {None: (31.886, 0.05), 50: (31.932, 0.05), 90: (47.685, 0.05), 99: (65.644, 0.08)},
}
"""Seconds at percentiles (None: the mean), and the relative tolerance of their means over shuffles.

Source: LoadGen's logs of NVIDIA's MLPerf Inference v5.1 run of the default configuration."""


@pytest.mark.slow
def test_ten_shuffles_reproduce_the_published_run() -> None:
    logs = [simulate_serving(*make_trial(f"load.shuffle_seed={seed}")) for seed in range(10)]
    simulated = {
        "ttft": [ttft_s(log) for log in logs],
        "tpot": [tpot_s(log) for log in logs],
        "latency": [(log.done_ns - log.scheduled_ns) / 1e9 for log in logs],
    }
    for quantity, percentiles in PUBLISHED.items():
        for percentile, (published_s, tolerance) in percentiles.items():
            values = [
                times.mean() if percentile is None else np.percentile(times, percentile)
                for times in simulated[quantity]
            ]
            assert np.mean(values) == pytest.approx(published_s, rel=tolerance), (quantity, percentile)
    assert all(len(log) == 16_626 for log in logs)
    rate_tps = np.mean([log.output_tokens.sum() for log in logs]) / 1055.028977942
    assert rate_tps == pytest.approx(9917.58, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "holds"), [(15.5, True), (16.5, False)])
def test_the_reference_capacity_is_about_16_qps(rate: float, holds: bool) -> None:
    """At most 136 of 16,626 requests may be late. Source: LoadGen's early stopping."""
    late = [
        int(
            (
                ttft_s(simulate_serving(*make_trial(f"load.target_qps={rate}", f"load.shuffle_seed={seed}")))
                > 4.5
            ).sum()
        )
        for seed in range(6)
    ]
    assert (np.array(late) <= 136).all() == holds
    assert (np.array(late) > 136).all() != holds
