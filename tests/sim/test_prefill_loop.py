"""Test the prefill loops against queueing theory and steps counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prefill_runs import BLOCK, serve_prompts

from tune.core.arrays import FloatArray
from tune.sim.queues import UNASSIGNED
from tune.workload.arrivals import schedule_ns


def run(
    tokens: list[int], arrival_s: list[float] | None = None, transfer_s: float = 0.0, **limits: Any
) -> tuple[FloatArray, FloatArray, float]:
    """Return start and end of each prefill on one worker, and the busy seconds."""
    served = serve_prompts(tokens, [0] * len(tokens), arrival_s, transfer_s, **limits)
    return served.start_s, served.done_s, float(served.busy_s[0])


@pytest.mark.slow
@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.85])
def test_waiting_time_equals_the_m_d_1_queue(utilisation: float) -> None:
    """Mean wait = rho S / (2 (1 - rho)). Source: Pollaczek-Khinchine formula for fixed service times."""
    mean_service_s, count = 2.0, 200_000
    arrival_s = schedule_ns(count, utilisation / mean_service_s, 1) / 1e9
    start_s, done_s, _ = run([100] * count, list(arrival_s), max_sequences=1)
    assert np.allclose(done_s - start_s, mean_service_s)
    expected_s = utilisation * mean_service_s / (2 * (1 - utilisation))
    assert (start_s - arrival_s).mean() == pytest.approx(expected_s, rel=0.05)


def test_waiting_time_equals_the_m_g_1_queue() -> None:
    """Mean wait = lambda E[S^2] / (2 (1 - rho)), here with services of 1.1 s and 2 s."""
    count, rate_qps = 200_000, 0.45
    tokens = np.random.RandomState(0).choice([10, 100], size=count)
    arrival_s = schedule_ns(count, rate_qps, 2) / 1e9
    start_s, _, busy_s = run(tokens.tolist(), list(arrival_s), max_sequences=1)
    rho, second_moment = rate_qps * 1.55, (1.1**2 + 2.0**2) / 2
    assert (start_s - arrival_s).mean() == pytest.approx(rate_qps * second_moment / (2 * (1 - rho)), rel=0.05)
    assert busy_s == pytest.approx((1.0 + 0.01 * tokens).sum())


def test_a_long_prompt_takes_full_chunks_and_a_rest() -> None:
    _, done_s, busy_s = run([250])
    assert done_s[0] == pytest.approx(2 * 1.0 + 250 * 0.01)
    assert busy_s == pytest.approx(done_s[0])


def test_chunks_attend_as_many_pairs_as_the_whole_prompt() -> None:
    _, done_s, _ = run([250], pair_s=1e-3)
    assert done_s[0] == pytest.approx(2 * 1.0 + 250 * 0.01 + 1e-3 * 250**2 / 2)


def test_first_come_first_served_chunks_fill_each_step() -> None:
    """Steps: 128 of the first; 22 of it, 30 of the second, two blocks of the third; the rest of the third."""
    _, done_s, _ = run([150, 30, 120])
    assert done_s == pytest.approx([4.44, 4.44, 6.0])


def test_equal_progress_shares_the_step() -> None:
    """Steps: 64 + 64; 64 + 36, the rest is less than a block; 72 of the first. The short one overtakes."""
    _, done_s, _ = run([200, 100], equal_progress=True)
    assert done_s == pytest.approx([6.0, 4.28])


def test_equal_progress_reuses_the_rest_of_a_short_share() -> None:
    _, done_s, _ = run([90, 10], equal_progress=True)
    assert done_s == pytest.approx([2.0, 2.0])


def test_more_prompts_than_tokens_in_a_step_still_end() -> None:
    start_s, done_s, _ = run([5] * 8, equal_progress=True, token_budget=3)
    assert (done_s > start_s).all()
    assert done_s.max() == pytest.approx(16 + 40 * 0.01)


def test_whole_prompts_wait_for_a_step_that_fits_them() -> None:
    _, done_s, _ = run([80, 60, 40], chunked=False)
    assert done_s == pytest.approx([1.8, 3.8, 3.8])


def test_the_batch_size_limits_a_step() -> None:
    _, done_s, _ = run([10, 10, 10], max_sequences=2)
    assert done_s == pytest.approx([1.2, 1.2, 2.3])


def test_static_batch_admits_no_prompt_while_it_runs() -> None:
    arrivals = [0.0, 0.5]
    _, joined_s, _ = run([150, 10], arrivals)
    start_s, separate_s, _ = run([150, 10], arrivals, static_batch=True)
    assert joined_s == pytest.approx([3.6, 3.6])
    assert separate_s == pytest.approx([3.5, 4.6])
    assert start_s[1] == pytest.approx(3.5)


def test_pipeline_stages_delay_the_last_step() -> None:
    _, done_s, busy_s = run([150], fill_steps=3)
    assert done_s[0] == pytest.approx(3.5 + 3 * 1.22)
    assert busy_s == pytest.approx(3.5)


def test_arrivals_join_at_step_boundaries() -> None:
    start_s, _, _ = run([100, 100], [0.0, 0.1])
    assert start_s == pytest.approx([0.0, 2.0])


def test_cache_is_occupied_until_the_transfer_ends() -> None:
    """Four blocks hold one prompt of 100 tokens, or two of 64."""
    start_s, done_s, _ = run([100, 100], kv_tokens=128, transfer_s=5.0)
    assert start_s[1] == pytest.approx(done_s[0] + 5.0)
    assert run([65, 64], kv_tokens=128, transfer_s=5.0)[0][1] > 0
    assert run([64, 64], kv_tokens=128, transfer_s=5.0)[0][1] == 0


def test_a_worker_sends_caches_one_at_a_time() -> None:
    served = serve_prompts([10, 10, 10], [0, 0, 1], transfer_s=5.0, slowdown=(1.0, 1.0))
    assert served.done_s == pytest.approx([1.2, 1.2, 1.1])
    assert served.sent_s == pytest.approx([6.2, 11.2, 6.1])


def test_a_slow_worker_takes_longer_steps() -> None:
    served = serve_prompts([100, 100], [0, 1], slowdown=(1.0, 1.5))
    assert served.done_s == pytest.approx([2.0, 3.0])
    assert served.busy_s == pytest.approx([2.0, 3.0])


def test_least_loaded_counts_prompts_in_progress() -> None:
    """Worker 0 has the long prompt. At 1 s worker 1 is busy too, so the turn decides; at 3 s it is idle."""
    arrivals = [0.0, 0.1, 1.0, 3.0, 3.1]
    served = serve_prompts([800, 10, 10, 10, 10], [UNASSIGNED] * 5, arrivals, slowdown=(1.0, 1.0))
    assert served.worker.tolist() == [0, 1, 0, 1, 1]
    late = serve_prompts([800, 10, 10], [UNASSIGNED] * 3, [0.0, 0.1, 1.5], slowdown=(1.0, 1.0))
    assert late.worker.tolist() == [0, 1, 1]


@given(
    prompts=st.lists(st.tuples(st.integers(1, 400), st.floats(0, 5)), min_size=1, max_size=40),
    equal_progress=st.booleans(),
    transfer_s=st.floats(0, 2),
)
def test_routing_by_load_to_one_worker_changes_nothing(
    prompts: list[tuple[int, float]], equal_progress: bool, transfer_s: float
) -> None:
    """A single worker that is chosen at each arrival serves like one that is assigned in advance."""
    tokens, gaps_s = zip(*prompts, strict=True)
    arrival_s = np.cumsum(gaps_s).tolist()
    limits: dict[str, Any] = {"equal_progress": equal_progress, "kv_tokens": 480}
    assigned, routed = (
        serve_prompts(list(tokens), [worker] * len(tokens), arrival_s, transfer_s, **limits)
        for worker in (0, UNASSIGNED)
    )
    for expected, actual in zip(assigned, routed, strict=True):
        assert np.array_equal(expected, actual)


def test_busy_time_stops_at_the_window() -> None:
    assert run([100, 100], max_sequences=1, window_s=3.0)[2] == pytest.approx(3.0)
    assert run([100], [10.0], window_s=3.0)[2] == 0.0


@given(
    tokens=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    gap_s=st.floats(0, 3),
    kv_blocks=st.integers(13, 40),
    max_sequences=st.integers(1, 6),
    chunked=st.booleans(),
    equal_progress=st.booleans(),
    static_batch=st.booleans(),
)
def test_every_prompt_is_served_and_the_cache_never_overflows(
    tokens: list[int], gap_s: float, kv_blocks: int, **limits: Any
) -> None:
    arrival_s = [gap_s * index for index in range(len(tokens))]
    budget = 100 if limits["chunked"] else 400
    served = serve_prompts(
        tokens,
        [0] * len(tokens),
        arrival_s,
        0.3,
        kv_tokens=kv_blocks * BLOCK,
        token_budget=budget,
        **limits,
    )
    start_s, done_s, busy_s = served.start_s, served.done_s, served.busy_s[0]
    assert (start_s >= arrival_s).all()
    assert (np.diff(start_s) >= 0).all()
    assert (done_s >= start_s + 1.0 + 0.01 * np.array(tokens) - 1e-9).all()
    assert busy_s >= 0.01 * sum(tokens) - 1e-9
    for now_s in start_s:
        cached = (start_s <= now_s) & (served.sent_s > now_s)
        assert (-(-np.array(tokens)[cached] // BLOCK)).sum() <= kv_blocks
        assert ((start_s <= now_s) & (done_s > now_s)).sum() <= limits["max_sequences"]
