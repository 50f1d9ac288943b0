"""Curves of prefill pools: one serves every scale."""

from __future__ import annotations

import numpy as np
import pytest

from tune.sim.prefill_loop import PrefillWorker
from tune.sim.worker_models import prefill_worker
from tune.spec.settings import Settings
from tune.surrogate.prefill_latency import PrefillPool, Workload, latency_curves, mean_service_s

ROUTERS = ("round-robin", "random", "least-loaded")


@pytest.fixture(scope="module")
def asked(settings: Settings) -> tuple[Workload, ...]:
    return Workload.by(settings.trial_spec.load)


def test_a_run_of_one_pass_goes_up_to_the_rate_at_which_the_benchmark_wants_two(settings: Settings) -> None:
    once, twice = Workload.by(settings.trial_spec.load)
    assert (len(once.prompt), len(twice.prompt)) == (1000, 2000)
    assert once.up_to_qps == pytest.approx(1000 / 30)


def test_a_load_without_whole_passes_has_one_length(settings: Settings) -> None:
    load = settings.trial_spec.load.sample(700)
    assert [len(one.prompt) for one in Workload.by(load)] == [700]


def pool(worker: PrefillWorker, on_head: int = 1) -> PrefillPool:
    return PrefillPool(worker, np.arange(6) < on_head)


def test_twice_the_step_times_take_twice_as_long_at_every_utilisation(
    settings: Settings, asked: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    slow = worker._replace(step_s=2 * worker.step_s, token_s=2 * worker.token_s, pair_s=2 * worker.pair_s)
    assert mean_service_s(slow, asked[0].prompt) == pytest.approx(2 * mean_service_s(worker, asked[0].prompt))
    for router in ROUTERS:
        before, after = (latency_curves(pool(one), asked, (router,), (1.0, 1.2))[0] for one in (worker, slow))
        assert after == pytest.approx(2 * before, rel=1e-6)


def test_more_load_takes_no_less_time_and_routers_differ(
    settings: Settings, asked: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    found, _ = latency_curves(pool(worker), asked, ROUTERS, (1.0,))
    assert found.shape == (2, 3, 1, 12)
    assert (np.diff(found[0], axis=-1) >= 0).all()
    busy = found[0, :, 0, 8]
    assert busy[1] > busy[0] > busy[2], "random is worse than turns, the least loaded better"


def test_a_slow_worker_costs_most_where_prompts_are_dealt_to_it_all_the_same(
    settings: Settings, asked: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    turns, free = latency_curves(pool(worker), asked, ("round-robin", "least-loaded"), (1.0, 1.3))[0][0]
    assert (turns[1] >= turns[0]).all()
    assert (free[1] >= free[0] * (1 - 1e-9)).all()
    assert turns[1, 7] / turns[0, 7] > free[1, 7] / free[0, 7] > 1
    without, _ = latency_curves(pool(worker, on_head=0), asked, ("round-robin", "least-loaded"), (1.0, 1.3))
    assert (without[:, :, 1] == without[:, :, 0]).all()


def test_the_slow_worker_of_turns_is_served_as_the_simulator_serves_it(
    settings: Settings, asked: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    anew = latency_curves(pool(worker), asked[:1], ("round-robin",), (1.0, 1.3))[0][0, 0, 1]
    whole = latency_curves(pool(worker), asked[:1], ("round-robin",), (1.3,))[0][0, 0, 0]
    assert anew == pytest.approx(whole)
