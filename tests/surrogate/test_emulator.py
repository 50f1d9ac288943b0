"""The emulator beside the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tune.analysis.slo import late_requests
from tune.loadgen.early_stopping import late_allowed
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.candidates import Candidates
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prior import ParameterSamples


def as_it_is(search: SurrogateOptimizer, **factors: float) -> ParameterSamples:
    """The rack of the calibration, but for `factors` in standard deviations of ln."""
    normal = np.zeros((1, len(search.space.names)))
    for name, value in factors.items():
        normal[0, search.space.names.index(name)] = value
    return ParameterSamples(normal, np.zeros((1, len(search.space.alternatives)), int))


def boundary(spec: TrialSpec, calibration: Calibration) -> float:
    low, high = 1.0, 40.0
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        log = simulate(spec.model_copy(update={"load": spec.load.at(middle)}), calibration)
        late = max(int(one.sum()) for one in late_requests(log, spec.slo))
        low, high = (middle, high) if late <= late_allowed(len(log)) else (low, middle)
    return low


@pytest.mark.slow
@pytest.mark.parametrize(
    "off",
    [{}, {"prefill_scale": 0.7}, {"kv_transfer_bytes_per_s": -2.5}],
    ids=["as calibrated", "slow kernels", "slow network"],
)
def test_it_comes_near_the_simulator(
    search: SurrogateOptimizer, few: Candidates, settings: Settings, off: dict[str, float]
) -> None:
    calibration = settings.cluster.calibration
    assert calibration
    figures = {
        name: getattr(calibration, name) * float(np.exp(sd * search.space.spread[name]))
        for name, sd in off.items()
    }
    rack = calibration.model_copy(update=figures)
    which = np.arange(0, len(few.specs), 3)
    said = np.exp(search.log_capacity(as_it_is(search, **off), which)[0])
    missed = np.log(said / [boundary(few.specs[at], rack) for at in which])
    assert np.abs(missed).max() < 0.15
    assert np.abs(missed).mean() < 0.09, "runs of 1,000 requests: a few bursts decide"


def test_a_slow_network_bounds_what_pools_could_do(search: SurrogateOptimizer, few: Candidates) -> None:
    which = np.arange(len(few.specs))
    usual, slow = (
        search.log_capacity(as_it_is(search, kv_transfer_bytes_per_s=sd), which) for sd in (0.0, -3.0)
    )
    assert (slow < usual).all()


def test_a_slow_last_worker_slows_the_decode_pool(search: SurrogateOptimizer, few: Candidates) -> None:
    which, rack = np.arange(len(few.specs)), as_it_is(search)
    at = [one.name for one in search.space.alternatives].index("last_decode_worker_scale")
    choice = rack.choice.copy()
    choice[0, at] = 2
    slow = search.log_capacity(replace(rack, choice=choice), which)
    usual = search.log_capacity(rack, which)
    assert (slow <= usual).all()
    assert (slow < usual).any()


def test_slow_workers_beside_the_front_end_are_those_of_the_pool_that_stands_there(
    settings: Settings,
) -> None:
    assert settings.cluster.calibration
    spec = settings.trial_spec
    heads = [
        spec.model_copy(update={"split": spec.split.model_copy(update={"head": head})})
        for head in ("prefill", "decode")
    ]
    for specs in (heads, heads[::-1]):
        search = SurrogateOptimizer(
            specs, np.zeros((2, 1)), np.ones((2, 1), bool), settings.cluster.calibration, 0
        )
        rack = as_it_is(search)
        at = [one.name for one in search.space.alternatives].index("head_node_scale")
        choice = rack.choice.copy()
        choice[0, at] = 2
        usual, slow = (
            search.log_capacity(one, np.arange(2))[0] for one in (rack, replace(rack, choice=choice))
        )
        by_head = dict(zip((one.split.head for one in specs), usual - slow, strict=True))
        assert by_head["prefill"] > 0.01, "prefill binds in the reference"
        assert by_head["decode"] < by_head["prefill"]
