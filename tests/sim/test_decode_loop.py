"""Test the decode loops against a step-by-step rewrite, queueing theory and steps counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decode_runs import BLOCK, SEQUENCE_S, WORKER, bent_steps, serve

from tune.core.arrays import FloatArray
from tune.sim.decode_pool import (
    EVICT_NEWEST,
    RESERVE_ANSWERS,
    WHOLE_BATCHES,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
)
from tune.sim.queues import UNASSIGNED
from tune.workload.arrivals import schedule_ns


def run(answer: list[int], ready_s: list[float] | None = None, **more: Any) -> tuple[DecodeResult, int]:
    """Return what happened to each request on one worker, and the peak of the cache."""
    served = serve(answer, [0] * len(answer), ready_s, **more)
    return served, int(served.peak_tokens[0])


def step_by_step(
    answer: list[int], ready_s: list[float], prompt: list[int], worker: DecodeWorker, steps: DecodeSteps
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Simulate the policies one step at a time, without closed forms; return start, first and done."""
    longest = max(answer)
    reserve = [-(-(p + longest) // BLOCK) * BLOCK for p in prompt]
    start, first, done = (np.full(len(answer), -1.0) for _ in range(3))
    made = [0] * len(answer)
    queue, paused, running = list(range(len(answer))), list[int](), list[int]()
    now = 0.0

    def fits(request: int) -> bool:
        others = [*running, request]
        if len(others) > worker.slots:
            return False
        if worker.policy == EVICT_NEWEST:
            return sum(prompt[r] + made[r] + BLOCK for r in others) <= worker.kv_tokens
        return sum(reserve[r] for r in others) <= worker.kv_tokens

    while queue or running or paused:
        while paused and fits(paused[-1]):
            request = paused.pop()
            tokens = prompt[request] + made[request]
            now += 0.5 * -(-tokens // worker.token_budget) + 0.01 * tokens + 0.0001 * tokens * tokens / 2
            running.append(request)
        may_join = not paused and not (worker.policy == WHOLE_BATCHES and running)
        while may_join and queue and ready_s[queue[0]] <= now and fits(queue[0]):
            start[queue[0]] = now
            running.append(queue.pop(0))
        if not running:
            now = ready_s[queue[0]]
            continue
        if worker.policy == EVICT_NEWEST:
            while sum(prompt[r] + made[r] + BLOCK for r in running) > worker.kv_tokens:
                paused.append(running.pop())
        batch, context = len(running), sum(prompt[r] + made[r] for r in running)
        segment = int(np.searchsorted(steps.bound_tokens, context / batch, side="right"))
        now += steps.batch_s[batch, segment] + steps.token_s[batch, segment] * context
        for request in running:
            made[request] += 1
            if made[request] == 1:
                first[request] = now
            if made[request] == answer[request]:
                done[request] = now
        running = [r for r in running if made[r] < answer[r]]
    return start, first, done


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 300)), min_size=1, max_size=25),
    gap_s=st.floats(0, 20),
    policy=st.sampled_from([RESERVE_ANSWERS, EVICT_NEWEST, WHOLE_BATCHES]),
    slots=st.integers(1, 5),
    kv_tokens=st.integers(400, 1500),
    context_token_s=st.sampled_from([(0.0,), (0.001,), (0.013,), (0.001, 0.02), (0.0, 0.013, 0.0, 0.001)]),
)
def test_closed_form_equals_one_step_at_a_time(
    lengths: list[tuple[int, int]], gap_s: float, context_token_s: tuple[float, ...], **limits: Any
) -> None:
    answer, prompt = [a for a, _ in lengths], [p for _, p in lengths]
    # an odd fraction of a step, so that no arrival coincides with a step and rounding decides
    ready_s = [index * gap_s * 1.0007 + index * 0.0123456789 for index in range(len(lengths))]
    steps = bent_steps(limits["slots"], *context_token_s)
    served, peak = run(answer, ready_s, prompt=prompt, steps=steps, **limits)
    start, first, done = step_by_step(answer, ready_s, prompt, WORKER._replace(**limits), steps)
    np.testing.assert_allclose(served.start_s, start, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(served.first_s, first, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(served.done_s, done, rtol=1e-9, atol=1e-9)
    assert peak <= limits["kv_tokens"]


@pytest.mark.slow
@settings(deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 300), st.floats(0, 20)), min_size=1, max_size=25
    ),
    policy=st.sampled_from([RESERVE_ANSWERS, EVICT_NEWEST, WHOLE_BATCHES]),
    context_token_s=st.sampled_from([0.0, 0.001]),
)
def test_routing_by_load_to_one_worker_changes_nothing(
    requests: list[tuple[int, int, float]], policy: int, context_token_s: float
) -> None:
    """A single worker that is chosen as each cache is sent serves like one that is assigned in advance."""
    answer, prompt, gaps_s = (list(column) for column in zip(*requests, strict=True))
    ready_s = (np.cumsum(gaps_s) + 0.0123456789 * np.arange(len(gaps_s))).tolist()
    assigned, routed = (
        serve(
            answer,
            [worker] * len(answer),
            ready_s,
            prompt,
            sequence_s=SEQUENCE_S,
            policy=policy,
            kv_tokens=800,
            context_token_s=context_token_s,
        )
        for worker in (0, UNASSIGNED)
    )
    for expected, actual in zip(assigned[:5], routed[:5], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_least_loaded_counts_requests_in_progress() -> None:
    """Worker 1 is idle again at 3 s, worker 0 only at 50 s."""
    served = serve([50, 3, 9, 9], [UNASSIGNED] * 4, [0.0, 0.1, 2.0, 4.0], slowdown=(1.0, 1.0))
    assert served.worker.tolist() == [0, 1, 0, 1]


def test_a_slow_worker_takes_longer_steps() -> None:
    served = serve([4, 4], [0, 1], slowdown=(1.0, 1.5))
    assert served.done_s == pytest.approx([4.0, 6.0])


def test_a_worker_receives_caches_one_at_a_time() -> None:
    """All caches are sent by 5 s; the second one waits for the link of worker 0, then all have latency."""
    served = serve(
        [4, 4, 4], [0, 0, 1], [5.0, 5.0, 5.0], slowdown=(1.0, 1.0), transfer_s=2.0, transfer_latency_s=0.5
    )
    assert served.ready_s == pytest.approx([5.5, 7.5, 5.5])


def test_a_sequence_slows_as_its_context_grows() -> None:
    served, _ = run([3], prompt=[100], context_token_s=0.01)
    assert served.first_s[0] == pytest.approx(2.0)
    assert served.done_s[0] == pytest.approx(2.0 + 2.01 + 2.02)


def test_arrivals_join_at_the_next_step() -> None:
    served, _ = run([10, 10], [0.0, 2.5])
    assert served.start_s == pytest.approx([0.0, 3.0])
    assert served.first_s == pytest.approx([1.0, 4.0])


def test_an_arrival_at_a_step_joins_it() -> None:
    assert run([10, 10], [0.0, 3.0])[0].start_s[1] == 3.0


def test_the_batch_size_sets_the_step() -> None:
    served, _ = run([4, 2], sequence_s=0.5)
    assert served.done_s == pytest.approx([2 * 2.0 + 2 * 1.5, 2 * 2.0])


def test_guaranteed_no_evict_waits_for_the_reservation() -> None:
    """128 tokens are reserved for each request; 255 hold one of them at a time."""
    served, peak = run([10, 10], prompt=[100, 100], kv_tokens=255)
    assert served.start_s == pytest.approx([0.0, 10.0])
    assert peak == 128


def test_max_utilization_admits_by_current_usage() -> None:
    served, peak = run([10, 10], prompt=[100, 100], kv_tokens=290, policy=EVICT_NEWEST)
    assert served.start_s == pytest.approx([0.0, 0.0])
    assert 128 < peak <= 290


def test_max_utilization_pauses_and_recomputes_the_youngest() -> None:
    """266 tokens hold two sequences of 100 + 31 for two steps, growing by two a step."""
    served, _ = run([10, 10], prompt=[100, 100], kv_tokens=266, policy=EVICT_NEWEST)
    assert served.done_s[0] == pytest.approx(10.0)
    recompute_s = 2 * 0.5 + 0.01 * 102 + 0.0001 * 102**2 / 2
    assert served.first_s[1] == pytest.approx(1.0)
    assert served.done_s[1] == pytest.approx(10.0 + recompute_s + 8.0)


def test_static_batch_waits_for_an_empty_engine() -> None:
    served, _ = run([5, 20, 5], [0.0, 0.0, 1.0], policy=WHOLE_BATCHES)
    assert served.start_s == pytest.approx([0.0, 0.0, 20.0])


def test_slots_limit_the_batch() -> None:
    served, _ = run([5] * 6, slots=4)
    assert served.start_s == pytest.approx([0.0] * 4 + [5.0] * 2)


def test_usage_counts_inside_the_window_only() -> None:
    served, _ = run([10], [5.0], window_s=8.0)
    assert served.usage[0, 0] == pytest.approx(3.0)
    assert run([10], [5.0], window_s=5.0)[0].usage[0, 0] == 0.0


def test_cache_in_use_counts_the_token_of_the_step() -> None:
    assert run([3], prompt=[100])[0].usage[0, 1] == pytest.approx(101 + 102 + 103)


def test_batch_integral_equals_the_time_in_slots() -> None:
    """Little's law without averages: the worker's integral equals the time of all requests."""
    answer = np.random.RandomState(3).randint(1, 50, size=500).tolist()
    ready_s = (schedule_ns(500, 0.15, 4) / 1e9).tolist()
    served, _ = run(answer, ready_s, sequence_s=0.01)
    assert served.usage[0, 0] == pytest.approx((served.done_s - served.start_s).sum())


@pytest.mark.parametrize("utilisation", [0.4, 0.8])
def test_waiting_time_equals_the_m_d_1_queue(utilisation: float) -> None:
    """One slot, answers of ten steps. Source: Pollaczek-Khinchine formula for fixed service times."""
    count, mean_service_s = 200_000, 10.0
    ready_s = (schedule_ns(count, utilisation / mean_service_s, 5) / 1e9).tolist()
    served, _ = run([10] * count, ready_s, slots=1)
    wait_s = served.start_s - np.array(ready_s)
    assert wait_s.mean() == pytest.approx(utilisation * mean_service_s / (2 * (1 - utilisation)), rel=0.05)


def test_waiting_time_equals_the_m_m_c_queue() -> None:
    """Four slots and geometric answers of 200 short steps on average. Source: Erlang's C formula."""
    count, slots, mean_s, rate_qps = 300_000, 4, 1.0, 3.2
    answer = np.random.RandomState(6).geometric(1 / 200, size=count)
    ready_s = schedule_ns(count, rate_qps, 7) / 1e9
    served, _ = run(answer.tolist(), ready_s.tolist(), step_s=mean_s / 200, kv_tokens=10**9, slots=slots)
    load = rate_qps * mean_s
    terms = np.cumprod([1.0, *(load / k for k in range(1, slots + 1))])
    last = terms[slots] * slots / (slots - load)
    waits_frac = last / (terms[:slots].sum() + last)
    expected_s = waits_frac * mean_s / (slots - load)
    assert (served.start_s - ready_s).mean() == pytest.approx(expected_s, rel=0.08)


def test_receiving_a_cache_holds_up_the_whole_batch() -> None:
    """The second request arrives at 1.5 s with 50 tokens: at 2 s the batch waits 0.5 s, then both step."""
    held_up = serve([4, 2], [0, 0], [0.0, 1.5], [1, 50], stall_token_s=0.01)
    assert held_up.start_s.tolist() == [0.0, pytest.approx(2.01)]
    assert held_up.first_s.tolist() == [pytest.approx(1.01), pytest.approx(3.51)]
    assert held_up.done_s.tolist() == [pytest.approx(4.51), pytest.approx(4.51)]
