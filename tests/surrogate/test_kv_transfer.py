"""Test the delays of KV cache transfers against the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import FloatArray
from tune.sim.simulator import simulate_serving
from tune.spec.memory import kv_bytes_per_token
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.surrogate.kv_transfer import (
    LINK_UTILISATION,
    CompletedPrefill,
    link_count,
    transfer_delays,
    transfer_end_s,
)

NETWORK_FRAC = 0.04
"""Rate of a slow network, as a share of the calibrated one."""


def completed_prefill(spec: TrialSpec, prompt_tokens: float = 0.0, seed: int = 0) -> CompletedPrefill:
    """Return random arrivals at an idle pool; all prompts have one length where it is given."""
    draws, count = np.random.default_rng(seed), 4000
    arrival_s = np.cumsum(draws.exponential(0.1, count))
    prompt = draws.integers(2000, 20000, count) if not prompt_tokens else np.full(count, int(prompt_tokens))
    return CompletedPrefill(
        arrival_s, prompt, np.arange(count) % spec.split.prefill_workers, arrival_s + prompt / 10_000
    )


def test_transfers_end_when_the_simulator_says(settings: Settings) -> None:
    assert settings.cluster.calibration
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    bytes_per_s = NETWORK_FRAC * calibration.kv_transfer_bytes_per_s
    slow = calibration.model_copy(update={"kv_transfer_bytes_per_s": bytes_per_s})
    log = simulate_serving(spec, slow)
    assert log.stages is not None
    kv_s = log.input_tokens * kv_bytes_per_token(spec.model, spec.prefill) / bytes_per_s
    done_s = log.stages.prefill_done_ns / 1e9
    sent_s, received_s = kv_s[None] / spec.prefill.gpus, kv_s[None] / spec.decode.gpus
    (ready_s,) = transfer_end_s(done_s, log.prefill_worker, log.decode_worker, sent_s, received_s)
    arrived_s = log.stages.kv_arrived_ns / 1e9 - slow.kv_transfer_latency_s
    assert np.quantile(arrived_s - done_s, 0.99) > 1.2 * np.quantile(kv_s / spec.decode.gpus, 0.99), "queues"
    assert ready_s == pytest.approx(arrived_s, abs=1e-6)


def test_idle_links_are_as_fast_as_the_end_with_fewer_gpus(settings: Settings) -> None:
    spec = settings.trial_spec
    for gpus in (2, 8):
        engine = spec.decode.model_copy(update={"tensor_parallel_size": gpus})
        changed = spec.model_copy(update={"decode": engine})
        (delays,) = transfer_delays([completed_prefill(changed, 8000)], changed, "round-robin", 0.9)
        assert delays[0] == pytest.approx(1 / min(gpus, spec.prefill.gpus), rel=0.02)


def test_delays_grow_with_link_utilisation(settings: Settings) -> None:
    spec = settings.trial_spec
    loads = [completed_prefill(spec), completed_prefill(spec, seed=1)]
    delays: FloatArray = transfer_delays(loads, spec, "round-robin", 0.99)
    assert delays.shape == (2, len(LINK_UTILISATION))
    assert (np.diff(delays[:, 2:], axis=1) > 0).all()
    assert (delays[:, -1] > 3 * delays[:, 0]).all()


def test_random_routing_delays_transfers_more_than_round_robin(settings: Settings) -> None:
    stack = settings.trial_spec.stack.model_copy(update={"name": "dynamo_v1"})
    spec = settings.trial_spec.model_copy(update={"stack": stack})
    round_robin, least_loaded, random = (
        transfer_delays([completed_prefill(spec)], spec, router, 0.99)[0]
        for router in ("round-robin", "least-loaded", "random")
    )
    assert (least_loaded == round_robin).all()
    assert (random[1:] > round_robin[1:]).all()


def test_a_single_request_has_finite_delays(settings: Settings) -> None:
    single = CompletedPrefill(np.zeros(1), np.array([9000]), np.zeros(1, np.int64), np.ones(1))
    assert np.isfinite(transfer_delays([single], settings.trial_spec, "round-robin", 0.99)).all()


def test_link_count_is_that_of_the_pool_with_fewer_gpus(settings: Settings) -> None:
    split = settings.trial_spec.split
    assert link_count(settings.trial_spec) == 4 * min(split.prefill_workers, split.decode_workers) == 16
