"""Test decode workers with attention data parallelism: by hand, against a rewrite, and as plain workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decode_runs import BLOCK, WORKER, bent_steps, decode_requests, serve

from tune.core.arrays import FloatArray
from tune.sim.decode_pool import (
    EVICT_NEWEST,
    RESERVE_ANSWERS,
    WHOLE_BATCHES,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
    empty_decode_result,
    linear_steps,
)
from tune.sim.queues import UNASSIGNED
from tune.sim.ranks.rank_router import FEWEST_REQUESTS, FEWEST_TOKENS, ROUND_ROBIN, choose_rank
from tune.sim.ranks.ranked_decode import RankedWorker, decode_by_ranks

POLICIES = [RESERVE_ANSWERS, EVICT_NEWEST, WHOLE_BATCHES]


def serve_ranked(
    ranks: int,
    answer: list[int],
    ready_s: list[float] | None = None,
    prompt: list[int] | None = None,
    *,
    router: int = FEWEST_TOKENS,
    worker: list[int] | None = None,
    slowdown: tuple[float, ...] = (1.0,),
    steps: DecodeSteps | None = None,
    sequence_s: float = 0.0,
    context_token_s: float = 0.0,
    transfer_s: float = 0.0,
    **limits: Any,
) -> DecodeResult:
    """Serve requests on workers of `ranks` ranks, whose steps take a second and more as the arguments say."""
    requests = decode_requests(answer, ready_s, prompt, transfer_s)
    result = empty_decode_result(np.array(worker or [0] * len(answer), np.int64), len(slowdown))
    limited = WORKER._replace(**limits)
    batch_s = np.array([1.0 + sequence_s * batch for batch in range(limited.slots + 1)])
    decode_by_ranks(
        RankedWorker(limited, ranks, router),
        np.array(slowdown),
        steps or linear_steps(batch_s, context_token_s),
        requests,
        result,
    )
    return result


def test_a_step_is_as_long_as_the_largest_batch_of_a_rank() -> None:
    """Three requests on two ranks: batches of 2 and 1, then 1 and 1, then 1; a step takes 1 + 0.5 batch."""
    served = serve_ranked(2, [2, 5, 4], prompt=[10, 10, 10], sequence_s=0.5)
    assert served.first_s == pytest.approx([2.0, 2.0, 2.0])
    assert served.done_s == pytest.approx([4.0, 4.0 + 3 * 1.5, 4.0 + 2 * 1.5])


def test_a_step_is_as_long_as_the_longest_contexts_of_a_rank() -> None:
    """The prompts of 100 and 10 tokens are on two ranks: steps read 100, 101, 102, then 13, 14 tokens."""
    served = serve_ranked(2, [3, 5], prompt=[100, 10], context_token_s=0.01)
    assert served.done_s == pytest.approx([6.03, 6.03 + 1.13 + 1.14])


def test_the_rank_that_reads_the_most_may_change() -> None:
    """Rank 0 has 20 tokens, rank 1 two sequences of 9: 20, 21, 22 and 23 tokens, then 26 and 28 of rank 1.

    18, 20, 22 and 24 tokens of rank 1 are more from the fourth step on.
    """
    served = serve_ranked(2, [6, 6, 6], prompt=[20, 9, 9], context_token_s=0.01, router=FEWEST_TOKENS)
    assert served.done_s == pytest.approx(np.full(3, 6 + 0.01 * (20 + 21 + 22 + 24 + 26 + 28)))


def test_every_rank_has_slots_of_its_own() -> None:
    served = serve_ranked(2, [5] * 5, slots=2)
    assert served.start_s == pytest.approx([0.0] * 4 + [5.0])


def test_every_rank_has_a_cache_of_its_own() -> None:
    """128 tokens are reserved for each request, 255 hold one of them on each rank."""
    served = serve_ranked(2, [10, 10, 10], prompt=[100, 100, 100], kv_tokens=255)
    assert served.start_s == pytest.approx([0.0, 0.0, 10.0])
    assert served.peak_tokens.tolist() == [128]


def test_a_request_waits_for_its_rank_even_where_another_is_free() -> None:
    """The third request has rank 0 for life: it waits 9 s for it, though rank 1 is idle after a second."""
    served = serve_ranked(2, [9, 1, 3], [0.0, 0.0, 0.5], router=ROUND_ROBIN, slots=1)
    assert served.start_s == pytest.approx([0.0, 0.0, 9.0])


def test_a_rank_that_computes_a_cache_again_holds_up_the_others() -> None:
    """Rank 0 pauses its second sequence, which it resumes at 10 s (test_decode_loop); rank 1 waits for it."""
    served = serve_ranked(
        2, [10, 20, 10], prompt=[100, 100, 100], kv_tokens=266, policy=EVICT_NEWEST, router=ROUND_ROBIN
    )
    recompute_s = 2 * 0.5 + 0.01 * 102 + 0.0001 * 102**2 / 2
    assert served.done_s[0] == pytest.approx(10.0)
    assert served.done_s[2] == pytest.approx(10.0 + recompute_s + 8.0)
    assert served.done_s[1] == pytest.approx(20.0 + recompute_s)


def test_every_rank_has_a_link_of_its_own() -> None:
    """Three caches are sent by 5 s; the third waits for the link of rank 0."""
    served = serve_ranked(2, [4, 4, 4], [5.0] * 3, transfer_s=2.0, router=ROUND_ROBIN)
    assert served.ready_s == pytest.approx([5.0, 5.0, 7.0])


def test_the_least_loaded_worker_counts_the_requests_of_all_its_ranks() -> None:
    """Worker 1 is idle again at 3 s, worker 0 only at 50 s."""
    served = serve_ranked(
        2, [50, 3, 9, 9], [0.0, 0.1, 2.0, 4.0], worker=[UNASSIGNED] * 4, slowdown=(1.0, 1.0)
    )
    assert served.worker.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("router", "requests", "tokens", "turn", "rank"),
    [
        (FEWEST_TOKENS, [0, 0, 0], [0, 0, 0], 7, 0),
        (FEWEST_TOKENS, [1, 1, 1], [30, 10, 20], 0, 1),  # all have as many: the fewest tokens
        (FEWEST_TOKENS, [3, 1, 2], [10, 99, 50], 0, 2),  # the fullest is out, though its prompts are short
        (FEWEST_TOKENS, [3, 2, 1], [10, 50, 50], 0, 2),  # as many tokens: the fewest requests
        (FEWEST_TOKENS, [2, 2, 1], [1, 1, 99], 0, 2),  # the mean with the new request is 2
        (FEWEST_REQUESTS, [3, 1, 2], [10, 99, 50], 0, 1),
        (FEWEST_REQUESTS, [1, 1, 1], [30, 10, 20], 0, 0),
        (ROUND_ROBIN, [9, 0, 0], [9, 0, 0], 3, 0),
        (ROUND_ROBIN, [9, 0, 0], [9, 0, 0], 5, 2),
    ],
)
def test_routers_by_hand(router: int, requests: list[int], tokens: list[int], turn: int, rank: int) -> None:
    assert choose_rank(router, np.array(requests), np.array(tokens), turn) == rank


@given(loads=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=16))
def test_fewest_tokens_takes_the_least_of_those_that_may_have_one_more(loads: list[tuple[int, int]]) -> None:
    """The engine's rule: ranks below the larger of the rounded-up mean and the fullest, as a sorted list."""
    requests, tokens = (np.array(column, np.int64) for column in zip(*loads, strict=True))
    expected = max(-(-(int(requests.sum()) + 1) // len(loads)), int(requests.max()))
    allowed = [(tokens[r], requests[r], r) for r in range(len(loads)) if requests[r] < expected]
    assert choose_rank(FEWEST_TOKENS, requests, tokens, 0) == min(allowed)[2]


REQUESTS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 300), st.floats(0, 20)), min_size=1, max_size=25
)


def columns(requests: list[tuple[int, int, float]]) -> tuple[list[int], list[int], list[float]]:
    """Return answers, prompts and arrivals, at odd fractions of a step so that rounding decides nothing."""
    answer, prompt, gaps_s = (list(column) for column in zip(*requests, strict=True))
    ready_s = (np.cumsum(gaps_s) + 0.0123456789 * np.arange(len(gaps_s))).tolist()
    return answer, prompt, ready_s


@pytest.mark.slow
@settings(deadline=None)
@given(
    requests=REQUESTS,
    policy=st.sampled_from(POLICIES),
    context_token_s=st.sampled_from([(0.0,), (0.001,), (0.001, 0.02)]),
)
def test_one_rank_is_a_plain_worker(
    requests: list[tuple[int, int, float]], policy: int, context_token_s: tuple[float, ...]
) -> None:
    answer, prompt, ready_s = columns(requests)
    steps = bent_steps(WORKER.slots, *context_token_s)
    limits = {"policy": policy, "kv_tokens": 800, "steps": steps}
    plain = serve(answer, [0] * len(answer), ready_s, prompt, **limits)
    ranked = serve_ranked(1, answer, ready_s, prompt, **limits)
    for expected, actual in zip(plain[:5], ranked[:5], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert ranked.peak_tokens.tolist() == plain.peak_tokens.tolist()
    assert ranked.steps.tolist() == plain.steps.tolist()
    np.testing.assert_allclose(ranked.usage[:, 0], plain.usage[:, 0], rtol=1e-9)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    requests=REQUESTS,
    ranks=st.integers(2, 4),
    context_token_s=st.sampled_from([(0.0,), (0.013,), (0.001, 0.02), (0.0, 0.013, 0.0, 0.001)]),
    policy=st.sampled_from(POLICIES),
    slots=st.integers(1, 4),
    kv_tokens=st.integers(400, 1500),
)
def test_closed_form_equals_one_step_at_a_time(
    requests: list[tuple[int, int, float]], ranks: int, context_token_s: tuple[float, ...], **limits: Any
) -> None:
    answer, prompt, ready_s = columns(requests)
    steps = bent_steps(limits["slots"], *context_token_s)
    served = serve_ranked(ranks, answer, ready_s, prompt, steps=steps, router=ROUND_ROBIN, **limits)
    rewrite = RankedRewrite((answer, prompt, ready_s), WORKER._replace(**limits), steps, ranks)
    for expected, actual in zip(rewrite.run(), (served.start_s, served.first_s, served.done_s), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


class RankedRewrite:
    """Serve requests, dealt to ranks in turn, one step at a time and without closed forms."""

    def __init__(
        self,
        requests: tuple[list[int], list[int], list[float]],
        worker: DecodeWorker,
        steps: DecodeSteps,
        ranks: int,
    ) -> None:
        """Let none of `requests` be served yet: answers, prompts and arrivals."""
        self.answer, self.prompt, self.ready_s = requests
        self.worker, self.steps = worker, steps
        self.made = [0] * len(self.answer)
        self.queues = [list(range(rank, len(self.answer), ranks)) for rank in range(ranks)]
        self.paused: list[list[int]] = [[] for _ in range(ranks)]
        self.running: list[list[int]] = [[] for _ in range(ranks)]

    def held(self, requests: list[int]) -> int:
        """Return the cache tokens that requests of a rank take."""
        if self.worker.policy == EVICT_NEWEST:
            return sum(self.prompt[r] + self.made[r] + BLOCK for r in requests)
        return sum(-(-(self.prompt[r] + max(self.answer)) // BLOCK) * BLOCK for r in requests)

    def fits(self, rank: int, request: int) -> bool:
        """Return whether a rank has room for one more."""
        requests = [*self.running[rank], request]
        return len(requests) <= self.worker.slots and self.held(requests) <= self.worker.kv_tokens

    def resume(self, rank: int) -> float:
        """Resume the paused requests of a rank; return the seconds of their recomputation."""
        lost_s = 0.0
        while self.paused[rank] and self.fits(rank, self.paused[rank][-1]):
            request = self.paused[rank].pop()
            tokens = self.prompt[request] + self.made[request]
            lost_s += 0.5 * -(-tokens // self.worker.token_budget) + 0.01 * tokens + 0.0001 * tokens**2 / 2
            self.running[rank].append(request)
        return lost_s

    def run(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return start, first and done of every request."""
        start, first, done = (np.full(len(self.answer), -1.0) for _ in range(3))
        ranks, now = range(len(self.queues)), 0.0
        while any(self.queues) or any(self.running) or any(self.paused):
            now += max(self.resume(rank) for rank in ranks)
            for rank in ranks:
                queue, running = self.queues[rank], self.running[rank]
                blocked = bool(self.paused[rank] or (self.worker.policy == WHOLE_BATCHES and running))
                while not blocked and queue and self.ready_s[queue[0]] <= now and self.fits(rank, queue[0]):
                    start[queue[0]] = now
                    running.append(queue.pop(0))
            if not any(self.running):
                now = min(self.ready_s[queue[0]] for queue in self.queues if queue)
                continue
            for rank in ranks:
                while self.worker.policy == EVICT_NEWEST and self.held(self.running[rank]) > (
                    self.worker.kv_tokens
                ):
                    self.paused[rank].append(self.running[rank].pop())
            batch = max(map(len, self.running))
            context = max(sum(self.prompt[r] + self.made[r] for r in running) for running in self.running)
            segment = int(np.searchsorted(self.steps.bound_tokens, context / batch, side="right"))
            now += self.steps.batch_s[batch, segment] + self.steps.token_s[batch, segment] * context
            for rank in ranks:
                for request in self.running[rank]:
                    self.made[request] += 1
                    if self.made[request] == 1:
                        first[request] = now
                    if self.made[request] == self.answer[request]:
                        done[request] = now
                self.running[rank] = [r for r in self.running[rank] if self.made[r] < self.answer[r]]
        return start, first, done
