"""What slow links add: as the simulated rack sends caches."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import FloatArray
from tune.sim.simulator import simulate
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

SLOWER = 0.04


def prefilled(spec: TrialSpec, prompt_tokens: float = 0.0, seed: int = 0) -> CompletedPrefill:
    """Prompts that come at random to an idle pool; all of one length where that is given."""
    draws, count = np.random.default_rng(seed), 4000
    arrival_s = np.cumsum(draws.exponential(0.1, count))
    prompt = draws.integers(2000, 20000, count) if not prompt_tokens else np.full(count, int(prompt_tokens))
    return CompletedPrefill(
        arrival_s, prompt, np.arange(count) % spec.split.prefill_workers, arrival_s + prompt / 10_000
    )


def test_caches_pass_both_ends_as_on_the_simulated_rack(settings: Settings) -> None:
    assert settings.cluster.calibration
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    bytes_per_s = SLOWER * calibration.kv_transfer_bytes_per_s
    slow = calibration.model_copy(update={"kv_transfer_bytes_per_s": bytes_per_s})
    log = simulate(spec, slow)
    assert log.stages is not None
    kv_s = log.input_tokens * kv_bytes_per_token(spec.model, spec.prefill) / bytes_per_s
    done_s = log.stages.prefill_done_ns / 1e9
    sent_s, received_s = kv_s[None] / spec.prefill.gpus, kv_s[None] / spec.decode.gpus
    (ready_s,) = transfer_end_s(done_s, log.prefill_worker, log.decode_worker, sent_s, received_s)
    arrived_s = log.stages.kv_arrived_ns / 1e9 - slow.kv_transfer_latency_s
    assert np.quantile(arrived_s - done_s, 0.99) > 1.2 * np.quantile(kv_s / spec.decode.gpus, 0.99), "queues"
    assert ready_s == pytest.approx(arrived_s, abs=1e-6)


def test_a_cache_on_idle_links_takes_what_the_end_with_fewer_gpus_takes(settings: Settings) -> None:
    spec = settings.trial_spec
    for gpus in (2, 8):
        engine = spec.decode.model_copy(update={"tensor_parallel_size": gpus})
        other = spec.model_copy(update={"decode": engine})
        (found,) = transfer_delays([prefilled(other, 8000)], other, "round-robin", 0.9)
        assert found[0] == pytest.approx(1 / min(gpus, spec.prefill.gpus), rel=0.02)


def test_busier_links_make_the_slowest_wait_longer_than_they_take(settings: Settings) -> None:
    spec = settings.trial_spec
    found: FloatArray = transfer_delays([prefilled(spec), prefilled(spec, seed=1)], spec, "round-robin", 0.99)
    assert found.shape == (2, len(LINK_UTILISATION))
    assert (np.diff(found[:, 2:], axis=1) > 0).all()
    assert (found[:, -1] > 3 * found[:, 0]).all()


def test_who_sends_by_chance_queues_longer_than_who_sends_in_turns(settings: Settings) -> None:
    stack = settings.trial_spec.stack.model_copy(update={"name": "dynamo_v1"})
    spec = settings.trial_spec.model_copy(update={"stack": stack})
    turns, free, chance = (
        transfer_delays([prefilled(spec)], spec, router, 0.99)[0]
        for router in ("round-robin", "least-loaded", "random")
    )
    assert (free == turns).all()
    assert (chance[1:] > turns[1:]).all()


def test_a_single_request_has_waits_too(settings: Settings) -> None:
    one = CompletedPrefill(np.zeros(1), np.array([9000]), np.zeros(1, np.int64), np.ones(1))
    assert np.isfinite(transfer_delays([one], settings.trial_spec, "round-robin", 0.99)).all()


def test_the_pool_with_fewer_gpus_has_the_links_that_count(settings: Settings) -> None:
    split = settings.trial_spec.split
    assert link_count(settings.trial_spec) == 4 * min(split.prefill_workers, split.decode_workers) == 16
