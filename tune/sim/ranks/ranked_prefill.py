"""Run the serving loops of prefill workers with attention data parallelism, whose ranks step together.

Every rank has a queue, a batch of prompts, a token budget and a KV cache of its own, as a prefill worker has
(tune/sim/prefill_loop.py). A step ends for all ranks with that of the slowest one.

`attention_dp_config` changes nothing here: with enable_balance, ranks wait for each other before they read
prompts only while all of them also continue answers, which prefill workers never do.
Source: TensorRT-LLM, _balance_adp_requests in _torch/pyexecutor/py_executor.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined
from tune.sim.prefill_loop import admit_prompts, finish_prompts, plan_chunks, read_chunks, release_sent
from tune.sim.prefill_pool import (
    BATCH,
    BUSY,
    FREE_BLOCKS,
    JUST_ENDED,
    LOAD,
    NOW,
    OUTSIDE,
    STEPS,
    PrefillPoolState,
    PrefillQueue,
    PrefillRequests,
    PrefillResult,
    PrefillState,
    PrefillTable,
    PrefillWorker,
    empty_prefill_pool,
)
from tune.sim.queues import HEAD, UNASSIGNED, enqueue, least_loaded
from tune.sim.ranks.rank_router import choose_rank


class RankedReader(NamedTuple):
    """Describe a worker of `ranks` ranks, each of which is limited as `rank` says.

    `router` divides the worker's prompts among them, a constant of tune/sim/ranks/rank_router.py.
    """

    rank: PrefillWorker
    ranks: int
    router: int


class RankedReaders(NamedTuple):
    """Hold the state of all workers of a pool.

    The ranks of a worker are rows of `state`, one after the other. `held` are the tokens of the prompts of
    each row that are not done, `turns` (workers,) the prompts that each worker has had. What was counted last
    is in `load` (workers,), prompts of each worker, and in `prompts` and `tokens` (ranks,), those of each
    rank of a worker.
    """

    limits: PrefillWorker
    ranks: int
    router: int
    queue: PrefillQueue
    state: PrefillPoolState
    result: PrefillResult
    held: IntArray
    turns: IntArray
    load: IntArray
    prompts: IntArray
    tokens: IntArray


@compiled
def prefill_by_ranks(
    worker: RankedReader,
    slowdown: FloatArray,
    table: PrefillTable,
    prompts: PrefillRequests,
    result: PrefillResult,
) -> None:
    """Serve prompts first come, first served, on one worker per entry of `slowdown`.

    Parameters
    ----------
    worker
        What a worker may do. A prompt must fit the empty cache of a rank, and its token budget if it is not
        chunked. Each rank has a link of its own.
    slowdown
        Factor on the steps of each worker, shape (workers,).
    table
        Step times of a rank, read where `worker.rank.table_scale` is above 0.
    prompts
        Prompts in order of arrival; each is given a rank then.
    result
        Filled; its `worker` says which prompts are routed already. `steps` counts those of all ranks.
    """
    count, workers = len(prompts.tokens), len(slowdown)
    queue = PrefillQueue(
        prompts.arrival_s,
        prompts.tokens,
        prompts.transfer_s,
        prompts.tokens.copy(),
        np.full(count, UNASSIGNED, np.int64),
        np.full(count, UNASSIGNED, np.int64),
        table,
    )
    pool = idle_readers(worker, slowdown, queue, result)
    for prompt in range(count + 1):  # the last turn serves to the end
        arrival_s = prompts.arrival_s[prompt] if prompt < count else np.inf
        routed = result.worker[prompt] if prompt < count else UNASSIGNED
        for each in range(workers):
            if routed in (UNASSIGNED, each):
                read_on_ranks(pool, each, arrival_s)
        if prompt == count:
            break
        if routed == UNASSIGNED:
            result.worker[prompt] = least_loaded_reader(pool, arrival_s, prompt % workers)
        receive_prompt(pool, prompt, arrival_s)
    enter_read_counts(pool)


@compiled
def idle_readers(
    worker: RankedReader, slowdown: FloatArray, queue: PrefillQueue, result: PrefillResult
) -> RankedReaders:
    """Return idle workers, one per entry of `slowdown`.

    Parameters
    ----------
    worker, slowdown, result
        Arguments of `prefill_by_ranks`.
    queue
        State of the prompts, before any has come.

    Returns
    -------
    RankedReaders
        The workers, whose caches are empty.
    """
    limits, ranks, workers = worker.rank, worker.ranks, len(slowdown)
    state = empty_prefill_pool(np.repeat(slowdown, ranks), min(limits.max_sequences, len(queue.tokens)))
    state.counters[:, FREE_BLOCKS] = limits.kv_tokens // limits.kv_block_tokens
    return RankedReaders(
        limits,
        ranks,
        worker.router,
        queue,
        state,
        result,
        np.zeros(workers * ranks, np.int64),
        np.zeros(workers, np.int64),
        np.zeros(workers, np.int64),
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int64),
    )


@inlined
def receive_prompt(pool: RankedReaders, prompt: int, arrival_s: float) -> None:
    """Put a prompt into the queue of a rank of its worker."""
    worker = pool.result.worker[prompt]
    _count_pending(pool, worker, arrival_s)
    row = worker * pool.ranks + choose_rank(pool.router, pool.prompts, pool.tokens, pool.turns[worker])
    pool.turns[worker] += 1
    pool.state.counters[row, LOAD] += 1
    pool.held[row] += pool.queue.tokens[prompt]
    enqueue(pool.state.waiting[row], pool.queue.follower, prompt)


@compiled
def enter_read_counts(pool: RankedReaders) -> None:
    """Enter what the ranks of each worker counted."""
    state, result = pool.state, pool.result
    for worker in range(len(result.busy_s)):
        first = worker * pool.ranks
        result.busy_s[worker] = state.clock_s[first, BUSY]
        for row in range(first, first + pool.ranks):
            result.steps[worker, 0] += state.counters[row, STEPS]
            result.steps[worker, 1] += state.counters[row, OUTSIDE]


@inlined
def least_loaded_reader(pool: RankedReaders, now_s: float, first: int) -> int:
    """Return the worker with the fewest unread prompts; a tie goes to the next one from `first` on."""
    for worker in range(len(pool.load)):
        pool.load[worker] = _count_pending(pool, worker, now_s)
    return least_loaded(pool.load, first)


@inlined
def _count_pending(pool: RankedReaders, worker: int, now_s: float) -> int:
    """Count the unread prompts of each rank of a worker, and their tokens; return how many they are.

    A step in progress ends after `now_s`.
    """
    state, total = pool.state, 0
    for rank in range(pool.ranks):
        row = worker * pool.ranks + rank
        pool.prompts[rank], pool.tokens[rank] = state.counters[row, LOAD], pool.held[row]
        if state.clock_s[row, NOW] > now_s:
            batch = state.counters[row, BATCH]
            for slot in range(batch, batch + state.counters[row, JUST_ENDED]):
                pool.prompts[rank] += 1
                pool.tokens[rank] += pool.queue.tokens[state.active[row, slot]]
        total += pool.prompts[rank]
    return int(total)


@inlined
def _rank(pool: PrefillPoolState, row: int) -> PrefillState:
    """Return the state of one rank, as views; inlined, they count no references to arrays."""
    return PrefillState(
        pool.slowdown[row],
        pool.active[row],
        pool.chunk[row],
        pool.waiting[row],
        pool.sending[row],
        pool.counters[row],
        pool.clock_s[row],
    )


@inlined
def read_on_ranks(pool: RankedReaders, worker: int, until_s: float) -> None:
    """Run every step of a worker that starts before `until_s`."""
    clock_s, counters, first = pool.state.clock_s, pool.state.counters, worker * pool.ranks
    while clock_s[first, NOW] < until_s:
        reads, next_s = False, np.inf
        for row in range(first, first + pool.ranks):
            state = _rank(pool.state, row)
            release_sent(pool.limits, pool.queue, state, pool.result.sent_s)
            admit_prompts(pool.limits, pool.queue, state, pool.result.start_s)
            head = state.waiting[HEAD]
            if counters[row, BATCH] > 0:
                reads = True
            elif head != UNASSIGNED and pool.queue.arrival_s[head] > clock_s[first, NOW]:
                next_s = min(next_s, pool.queue.arrival_s[head])
            elif head != UNASSIGNED:
                next_s = min(next_s, pool.result.sent_s[state.sending[HEAD]])
        if reads:
            _step(pool, first)
        elif next_s == np.inf:
            return
        else:
            for row in range(first, first + pool.ranks):
                clock_s[row, NOW] = next_s


@inlined
def _step(pool: RankedReaders, first: int) -> None:
    """Let every rank read its chunks, and wait for the slowest."""
    limits, queue, clock_s, longest_s = pool.limits, pool.queue, pool.state.clock_s, 0.0
    for row in range(first, first + pool.ranks):
        state = _rank(pool.state, row)
        if state.counters[BATCH] > 0:
            planned = plan_chunks(limits, queue, state, limits.token_budget)
            longest_s = max(longest_s, read_chunks(limits, queue, state, planned, 0)[1])
    begin_s, duration_s = clock_s[first, NOW], pool.state.slowdown[first] * longest_s
    clock_s[first, BUSY] += max(0.0, min(begin_s + duration_s, limits.window_s) - begin_s)
    for row in range(first, first + pool.ranks):
        state = _rank(pool.state, row)
        clock_s[row, NOW] += duration_s
        finish_prompts(queue, state, pool.result, limits.fill_steps * duration_s)
        batch = state.counters[BATCH]
        for slot in range(batch, batch + state.counters[JUST_ENDED]):
            pool.held[row] -= queue.tokens[state.active[slot]]
