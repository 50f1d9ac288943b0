"""Test prefill workers with attention data parallelism: by hand, as plain workers, and what always holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prefill_runs import BLOCK, WORKER, serve_prompts

from tune.core.arrays import FloatArray
from tune.sim.prefill_pool import (
    NO_PREFILL_TABLE,
    PrefillRequests,
    PrefillResult,
    PrefillTable,
    empty_prefill_result,
)
from tune.sim.queues import UNASSIGNED
from tune.sim.ranks.rank_router import FEWEST_TOKENS, ROUND_ROBIN
from tune.sim.ranks.ranked_prefill import RankedReader, prefill_by_ranks


def serve_ranked(
    ranks: int,
    tokens: list[int],
    arrival_s: list[float] | None = None,
    *,
    transfer_s: float = 0.0,
    router: int = FEWEST_TOKENS,
    worker: list[int] | None = None,
    slowdown: tuple[float, ...] = (1.0,),
    table: PrefillTable = NO_PREFILL_TABLE,
    **limits: Any,
) -> PrefillResult:
    """Serve prompts on workers of `ranks` ranks; a step takes 1 s and 0.01 s a token of its longest rank."""
    count = len(tokens)
    arrivals = np.zeros(count) if arrival_s is None else np.array(arrival_s)
    prompts = PrefillRequests(arrivals, np.array(tokens, np.int64), np.full(count, transfer_s))
    result = empty_prefill_result(np.array(worker or [0] * count, np.int64), len(slowdown))
    reader = RankedReader(WORKER._replace(**limits), ranks, router)
    prefill_by_ranks(reader, np.array(slowdown), table, prompts, result)
    return result


def test_a_step_lasts_as_long_as_that_of_the_slowest_rank() -> None:
    """100 and 20 tokens are read in one step of 2 s, on two ranks."""
    served = serve_ranked(2, [100, 20])
    assert served.done_s == pytest.approx([2.0, 2.0])
    assert served.busy_s == pytest.approx([2.0])


def test_every_rank_has_a_token_budget_of_its_own() -> None:
    """Rank 0 reads 128, then 72 tokens; rank 1 reads 100, and has 28 left for the third prompt's first block.

    It reads no more than that is full blocks: 0 of 28 tokens; then all 50.
    """
    served = serve_ranked(2, [200, 100, 50])
    assert served.done_s == pytest.approx([2.28 + 1.72, 2.28, 2.28 + 1.72])


def test_every_rank_has_a_cache_of_its_own() -> None:
    """128 tokens of cache hold one prompt of 100 on each rank; the third waits until a cache has left."""
    served = serve_ranked(2, [100, 100, 100], transfer_s=5.0, kv_tokens=128, router=ROUND_ROBIN)
    assert served.start_s == pytest.approx([0.0, 0.0, 7.0])


def test_every_rank_has_a_link_of_its_own() -> None:
    served = serve_ranked(2, [50, 50, 50], transfer_s=5.0, router=ROUND_ROBIN)
    assert served.sent_s == pytest.approx([7.0, 7.0, 12.0])


def test_a_rank_without_prompts_waits_for_the_step_of_the_others() -> None:
    """The second prompt comes at 0.5 s to an idle rank, and is read from 2 s on."""
    served = serve_ranked(2, [100, 20], [0.0, 0.5])
    assert served.start_s == pytest.approx([0.0, 2.0])
    assert served.done_s == pytest.approx([2.0, 3.2])


def test_prompts_go_to_the_rank_with_the_fewest_tokens() -> None:
    """Prompts of 100 to rank 0, of 20 and 30 to rank 1; it has one more then, so the next is for rank 0."""
    served = serve_ranked(2, [100, 20, 30, 40], token_budget=1000)
    assert served.done_s == pytest.approx(np.full(4, 2.4))
    assert serve_ranked(2, [100, 20, 30, 40], token_budget=1000, router=ROUND_ROBIN).done_s == (
        pytest.approx(np.full(4, 2.3))
    )


def test_a_table_is_read_for_each_rank() -> None:
    """Steps of 64 and 32 new tokens take 6 and 4 s; the slower rank's counts for both."""
    table = PrefillTable(
        np.array([0.0, 32.0, 64.0, 128.0]), np.zeros(1), np.array([[2.0], [4.0], [6.0], [10]])
    )
    served = serve_ranked(2, [64, 32], table=table, table_scale=1.0, step_s=0.0, token_s=0.0)
    assert served.done_s == pytest.approx([6.0, 6.0])
    assert served.steps.tolist() == [[2, 0]]


PROMPTS = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 5)), min_size=1, max_size=25)


def columns(prompts: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Return tokens and arrivals, at odd fractions of a step so that rounding decides nothing."""
    tokens, gaps_s = (list(column) for column in zip(*prompts, strict=True))
    return tokens, (np.cumsum(gaps_s) + 0.0123456789 * np.arange(len(gaps_s))).tolist()


@settings(deadline=None)
@given(
    prompts=PROMPTS,
    transfer_s=st.sampled_from([0.0, 3.0]),
    equal_progress=st.booleans(),
    max_sequences=st.integers(1, 4),
    workers=st.integers(1, 2),
)
def test_one_rank_is_a_plain_worker(
    prompts: list[tuple[int, float]], transfer_s: float, workers: int, **limits: Any
) -> None:
    tokens, arrival_s = columns(prompts)
    limits |= {"kv_tokens": 600, "pair_s": 1e-4, "fill_steps": 1}
    unrouted = [UNASSIGNED] * len(tokens)
    plain = serve_prompts(tokens, unrouted, arrival_s, transfer_s, (1.0,) * workers, **limits)
    ranked = serve_ranked(
        1,
        tokens,
        arrival_s,
        worker=unrouted,
        slowdown=(1.0,) * workers,
        transfer_s=transfer_s,
        **limits,
    )
    for expected, actual in zip(plain[:5], ranked[:5], strict=True):
        np.testing.assert_array_equal(actual, expected)


@settings(deadline=None)
@given(prompts=PROMPTS, ranks=st.integers(2, 4), max_sequences=st.integers(1, 4))
def test_ranks_step_together_as_in_a_rewrite(
    prompts: list[tuple[int, float]], ranks: int, max_sequences: int
) -> None:
    tokens, arrival_s = columns(prompts)
    served = serve_ranked(ranks, tokens, arrival_s, router=ROUND_ROBIN, max_sequences=max_sequences)
    start_s, done_s = step_by_step(tokens, arrival_s, ranks, max_sequences)
    np.testing.assert_allclose(served.start_s, start_s, rtol=1e-9)
    np.testing.assert_allclose(served.done_s, done_s, rtol=1e-9)


def step_by_step(
    tokens: list[int], arrival_s: list[float], ranks: int, max_sequences: int
) -> tuple[FloatArray, FloatArray]:
    """Read prompts, dealt to ranks in turn, in lists; return when each is begun and done."""
    start_s, done_s = np.zeros(len(tokens)), np.zeros(len(tokens))
    left, now = list(tokens), 0.0
    waiting = [list(range(rank, len(tokens), ranks)) for rank in range(ranks)]
    active: list[list[int]] = [[] for _ in range(ranks)]
    while any(waiting) or any(active):
        for queue, batch in zip(waiting, active, strict=True):
            while queue and arrival_s[queue[0]] <= now and len(batch) < max_sequences:
                start_s[queue[0]] = now
                batch.append(queue.pop(0))
        if not any(active):
            now = min(arrival_s[queue[0]] for queue in waiting if queue)
            continue
        read = [0] * ranks
        for rank, batch in enumerate(active):
            for prompt in batch:
                budget = WORKER.token_budget - read[rank]
                taken = left[prompt] if left[prompt] <= budget else budget // BLOCK * BLOCK
                if taken == 0:
                    break
                left[prompt] -= taken
                read[rank] += taken
        now += WORKER.step_s + WORKER.token_s * max(read)
        for batch in active:
            for prompt in [prompt for prompt in batch if left[prompt] == 0]:
                done_s[prompt] = now
                batch.remove(prompt)
    return start_s, done_s
