"""Test the latency curves of prefill pools: one curve serves every scale of the step times."""

from __future__ import annotations

import numpy as np
import pytest

from tune.sim.prefill_pool import PrefillWorker
from tune.sim.worker_models import prefill_worker
from tune.spec.settings import Settings
from tune.surrogate.pool_limits import FirstTokenLimit
from tune.surrogate.prefill_latency import PrefillPool, Workload, latency_curves, mean_service_s

ROUTERS = ("round-robin", "random", "least-loaded")
P99 = (FirstTokenLimit(0.99, 4.5),)


@pytest.fixture(scope="module")
def runs(settings: Settings) -> tuple[Workload, ...]:
    """Return the runs of one and of two passes."""
    return Workload.from_load(settings.trial_spec.load)


def test_one_pass_serves_up_to_the_rate_of_two(settings: Settings) -> None:
    one_pass, two_passes = Workload.from_load(settings.trial_spec.load)
    assert (len(one_pass.prompt), len(two_passes.prompt)) == (1000, 2000)
    assert one_pass.max_qps == pytest.approx(1000 / 30)


def test_a_load_without_whole_passes_has_one_run(settings: Settings) -> None:
    load = settings.trial_spec.load.sample(700)
    assert [len(run.prompt) for run in Workload.from_load(load)] == [700]


def pool(worker: PrefillWorker, on_head: int = 1) -> PrefillPool:
    """Return a pool of six workers, the first `on_head` of which share the frontend's node."""
    return PrefillPool(worker, np.arange(6) < on_head)


@pytest.mark.slow
def test_doubled_step_times_double_the_latency_at_every_utilisation(
    settings: Settings, runs: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    slow = worker._replace(step_s=2 * worker.step_s, token_s=2 * worker.token_s, pair_s=2 * worker.pair_s)
    assert mean_service_s(slow, runs[0].prompt) == pytest.approx(2 * mean_service_s(worker, runs[0].prompt))
    for router in ROUTERS:
        base, doubled = (
            latency_curves(pool(model), runs, (router,), (1.0, 1.2), P99)[0] for model in (worker, slow)
        )
        assert doubled == pytest.approx(2 * base, rel=1e-6)


def test_latency_grows_with_load_and_differs_between_routers(
    settings: Settings, runs: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    latency_s, _ = latency_curves(pool(worker), runs, ROUTERS, (1.0,), P99)
    assert latency_s.shape == (2, 1, 3, 1, 12)
    assert (np.diff(latency_s[0], axis=-1) >= 0).all()
    busy = latency_s[0, 0, :, 0, 8]
    assert busy[1] > busy[0] > busy[2], "random is worse than round-robin, least-loaded is better"


def test_a_slow_worker_costs_most_under_round_robin(settings: Settings, runs: tuple[Workload, ...]) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    routers = ("round-robin", "least-loaded")
    round_robin, least_loaded = latency_curves(pool(worker), runs, routers, (1.0, 1.3), P99)[0][0, 0]
    assert (round_robin[1] >= round_robin[0]).all()
    assert (least_loaded[1] >= least_loaded[0] * (1 - 1e-9)).all()
    assert round_robin[1, 7] / round_robin[0, 7] > least_loaded[1, 7] / least_loaded[0, 7] > 1
    unaffected, _ = latency_curves(pool(worker, on_head=0), runs, routers, (1.0, 1.3), P99)
    assert (unaffected[..., 1, :] == unaffected[..., 0, :]).all()


def test_resimulating_the_slow_worker_equals_simulating_the_whole_pool(
    settings: Settings, runs: tuple[Workload, ...]
) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    resimulated = latency_curves(pool(worker), runs[:1], ("round-robin",), (1.0, 1.3), P99)[0][0, 0, 0, 1]
    whole = latency_curves(pool(worker), runs[:1], ("round-robin",), (1.3,), P99)[0][0, 0, 0, 0]
    assert resimulated == pytest.approx(whole)


def test_each_limit_has_a_curve_of_its_own(settings: Settings, runs: tuple[Workload, ...]) -> None:
    assert settings.cluster.calibration
    worker = prefill_worker(settings.trial_spec, settings.cluster.calibration, np.inf)
    median, mean = FirstTokenLimit(0.5, 4.5), FirstTokenLimit(None, 4.5)
    together, _ = latency_curves(pool(worker), runs, ROUTERS, (1.0, 1.3), (*P99, median, mean))
    assert together.shape == (2, 3, 3, 2, 12)
    alone, _ = latency_curves(pool(worker), runs, ROUTERS, (1.0, 1.3), (median,))
    assert (together[:, 1] == alone[:, 0]).all()
    assert (together[:, 0] > together[:, 1]).all()
    assert (together[:, 0] > together[:, 2]).all()
