"""Test the emulator against the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tune.analysis.slo import slo_holds
from tune.config import compose_overrides
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.load import Slo
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.candidates import Candidates
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prior import ParameterSamples


def calibrated(search: SurrogateOptimizer, **log_factors: float) -> ParameterSamples:
    """Return the calibration's parameters, moved by `log_factors` in prior standard deviations."""
    normal = np.zeros((1, len(search.prior.names)))
    for name, value in log_factors.items():
        normal[0, search.prior.names.index(name)] = value
    return ParameterSamples(normal, np.zeros((1, len(search.prior.hypotheses)), int))


def with_choice(search: SurrogateOptimizer, samples: ParameterSamples, name: str) -> ParameterSamples:
    """Return `samples` with the third value of hypothesis `name`."""
    column = [hypothesis.name for hypothesis in search.prior.hypotheses].index(name)
    choice = samples.choice.copy()
    choice[0, column] = 2
    return replace(samples, choice=choice)


def simulated_capacity_qps(spec: TrialSpec, calibration: Calibration) -> float:
    """Find the capacity by bisection on simulated runs."""
    low, high = 1.0, 60.0
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        log = simulate_serving(spec.model_copy(update={"load": spec.load.at(middle)}), calibration)
        low, high = (middle, high) if slo_holds(log, spec.slo) else (low, middle)
    return low


@pytest.mark.slow
@pytest.mark.parametrize(
    "log_factors",
    [{}, {"prefill_scale": 0.7}, {"kv_transfer_bytes_per_s": -2.5}],
    ids=["as calibrated", "slow kernels", "slow network"],
)
def test_emulated_capacity_is_near_the_simulated_one(
    search: SurrogateOptimizer, few: Candidates, settings: Settings, log_factors: dict[str, float]
) -> None:
    calibration = settings.cluster.calibration
    assert calibration
    parameters = {
        name: getattr(calibration, name) * float(np.exp(sd * search.prior.log_sd[name]))
        for name, sd in log_factors.items()
    }
    changed = calibration.model_copy(update=parameters)
    indices = np.arange(0, len(few.specs), 3)
    emulated = np.exp(search.log_capacity(calibrated(search, **log_factors), indices)[0])
    log_error = np.log(emulated / [simulated_capacity_qps(few.specs[index], changed) for index in indices])
    assert np.abs(log_error).max() < 0.15
    assert np.abs(log_error).mean() < 0.09, "in runs of 1,000 requests a few bursts decide"


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"ttft_p50_s": 1.2},
        {"ttft_mean_s": 1.5, "tpot_mean_s": 0.06},
        {"latency_p90_s": 5.0},
        {"latency_mean_s": 4.0, "ttft_p95_s": 3.0},
    ],
    ids=["median TTFT", "means", "latency", "latency and TTFT"],
)
def test_emulated_capacity_is_near_the_simulated_one_under_any_limit(
    few: Candidates, limits: dict[str, float]
) -> None:
    words = ("load=fixed", "load.dataset.inputs.tokens=6000", "load.dataset.outputs.tokens=60")
    settings = compose_overrides((*words, "load.min_duration_s=90.0")).settings
    assert settings.cluster.calibration
    changes = {"load": settings.load, "slo": Slo(**{"ttft_p99_s": None, "tpot_p99_s": None, **limits})}
    specs = [spec.model_copy(update=changes) for spec in few.specs[1::5]]
    search = SurrogateOptimizer(
        specs, few.features[1::5], few.matters, settings.cluster.calibration, 0, structural=False
    )
    emulated = np.exp(search.log_capacity(calibrated(search), np.arange(len(specs)))[0])
    simulated = [simulated_capacity_qps(spec, settings.cluster.calibration) for spec in specs]
    assert max(simulated) > 1.2 * min(simulated)
    assert np.abs(np.log(emulated / simulated)).max() < 0.15


@pytest.mark.slow
def test_a_slow_network_lowers_every_capacity(search: SurrogateOptimizer, few: Candidates) -> None:
    indices = np.arange(len(few.specs))
    usual, slow = (
        search.log_capacity(calibrated(search, kv_transfer_bytes_per_s=sd), indices) for sd in (0.0, -3.0)
    )
    assert (slow < usual).all()


def test_a_slow_last_worker_lowers_decode_capacity(search: SurrogateOptimizer, few: Candidates) -> None:
    indices, samples = np.arange(len(few.specs)), calibrated(search)
    slow = search.log_capacity(with_choice(search, samples, "last_decode_worker_scale"), indices)
    usual = search.log_capacity(samples, indices)
    assert (slow <= usual).all()
    assert (slow < usual).any()


@pytest.mark.slow
def test_a_slow_frontend_node_slows_the_pool_that_shares_it(settings: Settings) -> None:
    assert settings.cluster.calibration
    spec = settings.trial_spec
    by_head = [
        spec.model_copy(update={"split": spec.split.model_copy(update={"head": head})})
        for head in ("prefill", "decode")
    ]
    for specs in (by_head, by_head[::-1]):
        search = SurrogateOptimizer(
            specs, np.zeros((2, 1)), np.ones((2, 1), bool), settings.cluster.calibration, 0
        )
        samples = calibrated(search)
        usual, slow = (
            search.log_capacity(parameters, np.arange(2))[0]
            for parameters in (samples, with_choice(search, samples, "head_node_scale"))
        )
        loss = dict(zip((spec.split.head for spec in specs), usual - slow, strict=True))
        assert loss["prefill"] > 0.01, "prefill limits the reference configuration"
        assert loss["decode"] < loss["prefill"]
