"""Test the loops of aggregated workers: a rewrite step by step, the pools that they unite, steps by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.aggregated_rewrite import BLOCK, CONTEXT_TOKEN_S, SEQUENCE_S, STEP_S, Rewrite, Sequence, mixed_s

from tune.sim.aggregated_loop import serve_aggregated
from tune.sim.aggregated_pool import (
    AggregatedRequests,
    AggregatedResult,
    AggregatedSteps,
    AggregatedWorker,
    empty_aggregated_result,
)
from tune.sim.decode_loop import decode
from tune.sim.decode_pool import (
    EVICT_NEWEST,
    RESERVE_ANSWERS,
    WHOLE_BATCHES,
    DecodeRequests,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
    linear_steps,
)
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import (
    NO_PREFILL_TABLE,
    PrefillRequests,
    PrefillTable,
    PrefillWorker,
    empty_prefill_result,
)
from tune.sim.queues import UNASSIGNED

PROMPTS = PrefillWorker(
    max_sequences=4,
    token_budget=64,
    kv_tokens=100_000,
    kv_block_tokens=BLOCK,
    chunked=True,
    equal_progress=False,
    static_batch=False,
    step_s=1.0,
    token_s=0.01,
    pair_s=0.0001,
    table_scale=0.0,
    fill_steps=0,
    window_s=1e12,
)
ANSWERS = DecodeWorker(
    policy=RESERVE_ANSWERS,
    slots=4,
    kv_tokens=100_000,
    kv_block_tokens=BLOCK,
    transfer_latency_s=0.0,
    stall_token_s=0.0,
    token_budget=64,
    recompute_step_s=1.0,
    recompute_token_s=0.01,
    recompute_pair_s=0.0001,
    window_s=1e12,
)


def steps_of(slots: int) -> DecodeSteps:
    return linear_steps(STEP_S + SEQUENCE_S * np.arange(slots + 1.0), CONTEXT_TOKEN_S)


def serve(
    prompt: list[int],
    answer: list[int],
    arrival_s: list[float] | None = None,
    *,
    worker: list[int] | None = None,
    slowdown: tuple[float, ...] = (1.0,),
    steps: DecodeSteps | None = None,
    table: PrefillTable = NO_PREFILL_TABLE,
    **changes: Any,
) -> AggregatedResult:
    """Serve requests on one worker per entry of `slowdown`; `changes` are of either half of a worker."""
    count = len(prompt)
    own = {name: value for name, value in changes.items() if name in DecodeWorker._fields}
    answers = ANSWERS._replace(**own)
    prompts = PROMPTS._replace(
        **{name: value for name, value in changes.items() if name in PrefillWorker._fields},
        static_batch=answers.policy == WHOLE_BATCHES,
    )
    tokens, wanted = np.array(prompt, np.int64), np.array(answer, np.int64)
    requests = AggregatedRequests(
        np.zeros(count) if arrival_s is None else np.array(arrival_s, float),
        tokens,
        wanted,
        -(-(tokens + max(answer)) // BLOCK) * BLOCK,
    )
    result = empty_aggregated_result(np.array(worker or [0] * count, np.int64), len(slowdown))
    given_steps = AggregatedSteps(steps or steps_of(answers.slots), table)
    serve_aggregated(AggregatedWorker(prompts, answers), np.array(slowdown), given_steps, requests, result)
    return result


def test_a_prompt_is_read_in_chunks_and_its_last_one_gives_the_first_token() -> None:
    served = serve([100], [3]).answers
    first_s = mixed_s([(64, 0)]) + mixed_s([(36, 64)])
    assert served.first_s[0] == pytest.approx(first_s)
    steps_s = (STEP_S + SEQUENCE_S + CONTEXT_TOKEN_S * context for context in (101, 102))
    assert served.done_s[0] == pytest.approx(first_s + sum(steps_s))


def test_answers_come_first_and_prompts_take_what_is_left_of_the_step() -> None:
    """The second request arrives while the first is answered: 63 tokens of its 100 fit the first step."""
    served = serve([10, 100], [5, 2], [0.0, 1.2]).answers
    first_s = mixed_s([(10, 0)])
    alone_s = first_s + STEP_S + SEQUENCE_S + CONTEXT_TOKEN_S * 11
    # chunks that do not end their prompt are whole blocks: 60 of 63 tokens
    both_s = alone_s + mixed_s([(60, 0)], 1, 12)
    ended_s = both_s + mixed_s([(40, 60)], 1, 13)
    assert served.start_s[1] == pytest.approx(alone_s)
    assert served.first_s[1] == pytest.approx(ended_s)
    last_s = ended_s + STEP_S + 2 * SEQUENCE_S + CONTEXT_TOKEN_S * (14 + 101)
    assert served.done_s.tolist() == pytest.approx([last_s, last_s])


def test_a_step_by_tables_has_a_row_for_every_token_and_reads_the_caches_of_answers() -> None:
    tokens = np.array([0.0, 1.0, 64.0, 128.0])
    table = PrefillTable(tokens, np.array([0.0]), (2.0 + 0.05 * tokens)[:, None])
    steps = DecodeSteps(
        np.array([[0.0, 0.0], [3.0, 2.0]]),
        np.array([[0.0, 0.0], [0.01, 0.05]]),
        np.array([25.0, np.inf]),
        np.ones((2, 2), np.bool_),
    )
    result = serve(
        *([10, 30], [40, 1], [0.0, 5.1]),
        **{
            "steps": steps,
            "table": table,
            "table_scale": 2.0,
            "step_s": 0.0,
            "token_s": 0.0,
            "slots": 2,
            "max_sequences": 2,
        },
    )
    served = result.answers
    first_s = 2.0 * (2.0 + 0.05 * 10)
    alone_s = first_s + 3.0 + 0.01 * 11
    caches_s = 0.01 * 12
    assert served.first_s[1] == pytest.approx(alone_s + 2.0 * (2.0 + 0.05 * (30 + 1)) + caches_s)
    assert result.steps[0].tolist() == [2, 0]
    later = serve(*([10], [1]), table=table, table_scale=2.0, token_s=0.0, step_s=0.5).answers
    assert later.first_s[0] == pytest.approx(first_s + 0.5), "what passes between two steps"
    beyond = serve(
        [30, 30],
        [40, 1],
        [0.0, 3.6],
        steps=steps,
        table=table,
        table_scale=1.0,
        step_s=0.0,
        token_s=0.0,
        slots=2,
    ).answers
    alone_s = 2.0 + 0.05 * 30 + 2.0 + 0.05 * 31
    assert beyond.first_s[1] == pytest.approx(alone_s + 2.0 + 0.05 * 31 + (2.0 - 3.0) + 0.05 * 32)


workloads = st.lists(
    st.tuples(st.integers(1, 150), st.integers(1, 12), st.floats(0, 4)), min_size=1, max_size=14
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    workload=workloads,
    budget=st.sampled_from((5, 16, 64, 200)),
    slots=st.integers(1, 5),
    kv_blocks=st.integers(45, 120),
    evicts=st.booleans(),
)
def test_every_time_is_that_of_the_rewrite(
    workload: list[tuple[int, int, float]], budget: int, slots: int, kv_blocks: int, evicts: bool
) -> None:
    arrivals = np.cumsum([gap for _, _, gap in workload])
    sequences = [
        Sequence(number, prompt, answer, float(arrivals[number]))
        for number, (prompt, answer, _) in enumerate(workload)
    ]
    slots = min(slots, budget)
    policy = EVICT_NEWEST if evicts else RESERVE_ANSWERS
    result = serve(
        [prompt for prompt, _, _ in workload],
        [answer for _, answer, _ in workload],
        list(arrivals),
        **{"policy": policy, "token_budget": budget, "slots": slots, "kv_tokens": kv_blocks * BLOCK},
    )
    rewrite = Rewrite(budget, slots, kv_blocks * BLOCK, evicts, list(sequences))
    rewrite.run()
    for name, times in (("start", "start_s"), ("first", "first_s"), ("done", "done_s")):
        expected = [sequence.seen[name] for sequence in sequences]
        np.testing.assert_allclose(getattr(result.answers, times), expected, rtol=1e-9, err_msg=name)
    assert result.answers.peak_tokens[0] == rewrite.peak
    assert rewrite.peak <= kv_blocks * BLOCK
    assert result.busy_s[0] == pytest.approx(rewrite.busy_s)


@settings(deadline=None)
@given(workload=workloads, budget=st.sampled_from((16, 64, 200)), equal_progress=st.booleans())
def test_with_answers_of_one_token_it_is_the_prefill_pool(
    workload: list[tuple[int, int, float]], budget: int, equal_progress: bool
) -> None:
    tokens = np.array([prompt for prompt, _, _ in workload], np.int64)
    arrival_s = np.cumsum([gap for _, _, gap in workload])
    limits = PROMPTS._replace(token_budget=budget, equal_progress=equal_progress)
    worker = np.zeros(len(tokens), np.int64)
    expected = empty_prefill_result(worker, 1)
    prompts = PrefillRequests(arrival_s, tokens, np.zeros(len(tokens)))
    prefill(limits, np.ones(1), NO_PREFILL_TABLE, prompts, expected)
    result = serve(
        tokens.tolist(),
        [1] * len(tokens),
        arrival_s.tolist(),
        token_budget=budget,
        equal_progress=equal_progress,
    )
    np.testing.assert_array_equal(result.answers.first_s, expected.done_s)
    np.testing.assert_array_equal(result.answers.done_s, expected.done_s)
    assert result.busy_s[0] == expected.busy_s[0]


def test_with_prompts_of_one_token_it_is_the_decode_pool() -> None:
    """A step with prompts costs what one with as many more answers does: the coefficients are equal."""
    count, draws = 300, np.random.RandomState(3)
    answer = draws.randint(1, 30, size=count)
    arrival_s = draws.exponential(1.6, size=count).cumsum()
    alike = {"step_s": STEP_S, "token_s": SEQUENCE_S, "pair_s": 0.0, "token_budget": 10_000}
    steps = linear_steps(STEP_S + SEQUENCE_S * np.arange(101.0), 0.0)
    result = serve([1] * count, answer.tolist(), arrival_s.tolist(), steps=steps, slots=100, **alike).answers
    zeros = np.zeros(count)
    expected = DecodeResult(
        *(np.zeros(count, np.int64), zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy()),
        *(np.zeros((1, 2)), np.zeros(1, np.int64), np.zeros((1, 2), np.int64)),
    )
    ones = np.ones(count, np.int64)
    requests = DecodeRequests(
        np.arange(count), arrival_s, arrival_s, zeros, ones, answer.astype(np.int64), 64 * ones
    )
    decode(ANSWERS._replace(slots=100), np.ones(1), steps, requests, expected)
    np.testing.assert_allclose(result.first_s, expected.first_s)
    np.testing.assert_allclose(result.done_s, expected.done_s)


def test_whole_batches_begin_together() -> None:
    served = serve([10, 10, 10], [2, 4, 2], [0.0, 0.0, 0.1], policy=WHOLE_BATCHES).answers
    assert served.start_s[:2].tolist() == [0.0, 0.0]
    assert served.start_s[2] == served.done_s[:2].max()


def test_a_paused_request_is_read_again_with_its_answer_and_goes_on() -> None:
    """Two sequences of 20 + 8 tokens outgrow 48 tokens of cache: the newer one is read again."""
    result = serve([20, 20], [8, 8], policy=EVICT_NEWEST, kv_tokens=48)
    served = result.answers
    assert served.first_s[0] == served.first_s[1], "both prompts fit the first step"
    assert served.done_s[1] > served.done_s[0]
    assert served.peak_tokens[0] <= 48
    ample = serve([20, 20], [8, 8], policy=EVICT_NEWEST, kv_tokens=96).answers
    assert ample.done_s[0] == ample.done_s[1]
    assert served.done_s[1] > ample.done_s[1]


def test_without_chunks_a_prompt_waits_for_a_step_with_room_for_all_of_it() -> None:
    served = serve([60, 62], [6, 1], [0.0, 1.8], chunked=False, token_budget=62).answers
    assert served.start_s[1] == pytest.approx(served.done_s[0]), "61 tokens are left beside an answer"
    room_for_both = serve([60, 61], [6, 1], [0.0, 1.8], chunked=False, token_budget=62).answers
    assert room_for_both.start_s[1] < room_for_both.done_s[0]


def test_the_least_loaded_worker_is_the_one_with_fewest_unfinished_requests() -> None:
    served = serve(
        *([10] * 5, [60, 2, 60, 2, 2], [0.0, 0.1, 4.0, 4.1, 4.2]),
        worker=[UNASSIGNED] * 5,
        slowdown=(1.0, 1.0),
    ).answers
    assert served.worker.tolist() == [0, 1, 1, 1, 0]


def test_a_slow_worker_takes_longer_by_its_factor() -> None:
    served = serve([50, 50], [5, 5], worker=[0, 1], slowdown=(1.0, 1.5)).answers
    assert served.done_s[1] == pytest.approx(1.5 * served.done_s[0])


def test_use_is_counted_within_the_window() -> None:
    whole = serve([50], [5])
    end_s, first_s = whole.answers.done_s[0], whole.answers.first_s[0]
    assert whole.answers.usage[0, 0] == pytest.approx(end_s - first_s), "one answer, from its first token on"
    assert whole.busy_s[0] == pytest.approx(first_s)
    assert serve([50], [5], window_s=first_s / 2).busy_s[0] == pytest.approx(first_s / 2)
