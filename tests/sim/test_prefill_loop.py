"""One prefill worker, alone: against queueing theory and against steps counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.probe.arrivals import schedule_ns
from tune.results.requests import FloatArray
from tune.sim.prefill_loop import PrefillWorker, Prompts, prefill

WORKER = PrefillWorker(
    max_batch_size=8,
    max_num_tokens=100,
    kv_tokens=10_000,
    chunked=True,
    equal_progress=False,
    static_batch=False,
    step_s=1.0,
    token_s=0.01,
    pair_s=0.0,
    fill_steps=0,
    window_s=1e9,
)


def run(
    tokens: list[int], arrival_s: list[float] | None = None, transfer_s: float = 0.0, **limits: Any
) -> tuple[FloatArray, FloatArray, float]:
    """Start and end of each prefill, and the busy seconds."""
    count = len(tokens)
    arrivals = np.zeros(count) if arrival_s is None else np.array(arrival_s)
    start_s, done_s = np.full(count, -1.0), np.full(count, -1.0)
    prompts = Prompts(arrivals, np.array(tokens, np.int64), np.full(count, transfer_s))
    return start_s, done_s, prefill(WORKER._replace(**limits), prompts, start_s, done_s)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.85])
def test_waiting_time_of_m_d_1(utilisation: float) -> None:
    """Mean wait = rho S / (2 (1 - rho)). Source: Pollaczek-Khinchine formula for fixed service times."""
    service_s, count = 2.0, 200_000
    arrival_s = schedule_ns(count, utilisation / service_s, 1) / 1e9
    start_s, done_s, _ = run([100] * count, list(arrival_s), max_batch_size=1)
    assert np.allclose(done_s - start_s, service_s)
    expected_s = utilisation * service_s / (2 * (1 - utilisation))
    assert (start_s - arrival_s).mean() == pytest.approx(expected_s, rel=0.05)


def test_waiting_time_of_m_g_1() -> None:
    """Mean wait = lambda E[S^2] / (2 (1 - rho)), here with services of 1.1 s and 2 s."""
    count, rate_qps = 200_000, 0.45
    tokens = np.random.RandomState(0).choice([10, 100], size=count)
    arrival_s = schedule_ns(count, rate_qps, 2) / 1e9
    start_s, _, busy_s = run(tokens.tolist(), list(arrival_s), max_batch_size=1)
    rho, second_moment = rate_qps * 1.55, (1.1**2 + 2.0**2) / 2
    assert (start_s - arrival_s).mean() == pytest.approx(rate_qps * second_moment / (2 * (1 - rho)), rel=0.05)
    assert busy_s == pytest.approx((1.0 + 0.01 * tokens).sum())


def test_a_long_prompt_takes_full_chunks_and_a_rest() -> None:
    _, done_s, busy_s = run([250])
    assert done_s[0] == pytest.approx(3 * 1.0 + 250 * 0.01)
    assert busy_s == pytest.approx(done_s[0])


def test_chunks_attend_as_many_pairs_as_the_whole_prompt() -> None:
    _, done_s, _ = run([250], pair_s=1e-3)
    assert done_s[0] == pytest.approx(3 * 1.0 + 250 * 0.01 + 1e-3 * 250**2 / 2)


def test_first_come_first_served_chunks_fill_the_step_with_the_next_prompt() -> None:
    """Steps: 100 of the first; 50 of it and 30 of the second and 20 of the third; the rest of the third."""
    _, done_s, _ = run([150, 30, 60])
    assert done_s == pytest.approx([4.0, 4.0, 5.4])


def test_equal_progress_shares_the_step() -> None:
    """Steps: 50 + 50; 50 + 50; 100 of the first alone. The short prompt overtakes."""
    _, done_s, _ = run([200, 100], equal_progress=True)
    assert done_s == pytest.approx([6.0, 4.0])


def test_equal_progress_hands_on_what_a_short_prompt_leaves() -> None:
    _, done_s, _ = run([90, 10], equal_progress=True)
    assert done_s == pytest.approx([2.0, 2.0])


def test_more_prompts_than_tokens_in_a_step_still_end() -> None:
    start_s, done_s, _ = run([5] * 8, equal_progress=True, max_num_tokens=3)
    assert (done_s > start_s).all()
    assert done_s.max() == pytest.approx(14 + 40 * 0.01)


def test_whole_prompts_do_not_share_a_step_they_do_not_fit() -> None:
    _, done_s, _ = run([60, 60, 40], chunked=False)
    assert done_s == pytest.approx([1.6, 3.6, 3.6])


def test_batch_size_bounds_a_step() -> None:
    _, done_s, _ = run([10, 10, 10], max_batch_size=2)
    assert done_s == pytest.approx([1.2, 1.2, 2.3])


def test_static_batch_takes_nobody_in_while_it_runs() -> None:
    arrivals = [0.0, 0.5]
    _, joined_s, _ = run([150, 10], arrivals)
    start_s, alone_s, _ = run([150, 10], arrivals, static_batch=True)
    assert joined_s == pytest.approx([3.6, 3.6])
    assert alone_s == pytest.approx([3.5, 4.6])
    assert start_s[1] == pytest.approx(3.5)


def test_pipeline_stages_add_the_way_of_the_last_step() -> None:
    _, done_s, busy_s = run([150], fill_steps=3)
    assert done_s[0] == pytest.approx(3.5 + 3 * 1.5)
    assert busy_s == pytest.approx(3.5)


def test_arrivals_join_at_step_boundaries() -> None:
    start_s, _, _ = run([100, 100], [0.0, 0.1])
    assert start_s == pytest.approx([0.0, 2.0])


def test_cache_is_held_until_the_transfer_ends() -> None:
    start_s, done_s, _ = run([100, 100], kv_tokens=100, transfer_s=5.0)
    assert start_s[1] == pytest.approx(done_s[0] + 5.0)


def test_busy_time_stops_at_the_window() -> None:
    assert run([100, 100], max_batch_size=1, window_s=3.0)[2] == pytest.approx(3.0)
    assert run([100], [10.0], window_s=3.0)[2] == 0.0


@given(
    tokens=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    gap_s=st.floats(0, 3),
    kv_tokens=st.integers(400, 1200),
    max_batch_size=st.integers(1, 6),
    chunked=st.booleans(),
    equal_progress=st.booleans(),
    static_batch=st.booleans(),
)
def test_every_prompt_is_served_and_the_cache_never_overflows(
    tokens: list[int], gap_s: float, kv_tokens: int, **limits: Any
) -> None:
    arrival_s = [gap_s * index for index in range(len(tokens))]
    budget = 100 if limits["chunked"] else 400
    start_s, done_s, busy_s = run(
        tokens, arrival_s, 0.3, kv_tokens=kv_tokens, max_num_tokens=budget, **limits
    )
    assert (start_s >= arrival_s).all()
    assert (np.diff(start_s) >= 0).all()
    assert (done_s >= start_s + 1.0 + 0.01 * np.array(tokens) - 1e-9).all()
    assert busy_s >= 0.01 * sum(tokens) - 1e-9
    for at_s in start_s:
        held = (start_s <= at_s) & (done_s + 0.3 > at_s)
        assert np.array(tokens)[held].sum() <= kv_tokens
        assert ((start_s <= at_s) & (done_s > at_s)).sum() <= limits["max_batch_size"]
