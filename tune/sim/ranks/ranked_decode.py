"""Run the serving loops of decode workers with attention data parallelism, whose ranks step together.

Every rank has a queue, a batch and a KV cache of its own, as a decode worker has (tune/sim/decode_batch.py).
A step is as long as one with the largest batch of any rank, to which CUDA graphs pad the others, and the most
tokens of context that any rank reads: experts wait for all ranks in every layer.
Source: TensorRT-LLM, _torch/pyexecutor/cuda_graph_runner.py (batch of attention DP) and
_torch/modules/fused_moe (exchange of tokens among ranks).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined
from tune.sim.decode_batch import NEVER, admit_arrived, pass_time, pause, resume, retire, room
from tune.sim.decode_loop import advance, next_join_s, segment_of, steps_before, steps_to_change
from tune.sim.decode_pool import (
    BATCH,
    BATCH_INTEGRAL,
    CONTEXT,
    CONTEXT_INTEGRAL,
    EVICT_NEWEST,
    JUST_ENDED,
    LOAD,
    NOW,
    OUTSIDE,
    PAUSED,
    PEAK,
    STEP,
    STEPPED,
    DecodePool,
    DecodeQueue,
    DecodeRequests,
    DecodeResult,
    DecodeState,
    DecodeSteps,
    DecodeWorker,
    GrowingStep,
    empty_pool,
)
from tune.sim.queues import HEAD, UNASSIGNED, enqueue, least_loaded, link_end_s
from tune.sim.ranks.rank_router import choose_rank


class RankedWorker(NamedTuple):
    """Describe a worker of `ranks` ranks, each of which is limited as `rank` says.

    `router` divides the worker's requests among them, a constant of tune/sim/ranks/rank_router.py.
    """

    rank: DecodeWorker
    ranks: int
    router: int


class RankedPool(NamedTuple):
    """Hold the state of all workers of a pool.

    The ranks of a worker are rows of `state`, one after the other. `held` are the tokens of the prompts of
    each row that are not done, `link_s` is when the link of each row is free, `turns` (workers,) are the
    requests that each worker has had. What was counted last is in `load` (workers,), requests of each worker,
    and in `requests` and `tokens` (ranks,), those of each rank of a worker.
    """

    limits: DecodeWorker
    ranks: int
    router: int
    queue: DecodeQueue
    state: DecodePool
    result: DecodeResult
    held: IntArray
    link_s: FloatArray
    turns: IntArray
    load: IntArray
    requests: IntArray
    tokens: IntArray


@compiled
def decode_by_ranks(
    worker: RankedWorker,
    slowdown: FloatArray,
    steps: DecodeSteps,
    requests: DecodeRequests,
    result: DecodeResult,
) -> None:
    """Serve requests first come, first served, on one worker per entry of `slowdown`.

    Parameters
    ----------
    worker
        What a worker may do. A request must fit the empty cache of a rank, which has a link of its own.
    slowdown
        Factor on the steps of each worker, shape (workers,).
    steps
        Seconds of a step for each batch size and context of a rank.
    requests
        Requests with their KV transfers.
    result
        Filled; its `worker` says which are routed already. `peak_tokens` is that of a worker's fullest rank.

    Notes
    -----
    A request has its rank from the moment at which its cache was sent. The engine keeps requests that no rank
    has a slot for in one queue, here they wait for the rank that was chosen.
    """
    count, workers = len(requests.sent_s), len(slowdown)
    queue = DecodeQueue(
        result.ready_s,
        requests.prompt,
        requests.answer,
        requests.reserved,
        np.full(count, UNASSIGNED, np.int64),
        np.zeros(count, np.int64),
    )
    pool = empty_ranked_pool(worker, slowdown, steps, queue, result)
    for turn in range(count + 1):  # the last one serves to the end
        request = requests.order[turn] if turn < count else UNASSIGNED
        sent_s = requests.sent_s[request] if turn < count else np.inf
        routed = result.worker[request] if turn < count else UNASSIGNED
        for each in range(workers):
            if routed in (UNASSIGNED, each):
                while fill_batches(pool, each, sent_s):
                    generate_on_ranks(pool, each, sent_s)
        if turn == count:
            break
        if routed == UNASSIGNED:
            result.worker[request] = least_loaded_worker(pool, sent_s, request % workers)
        receive_cache(pool, request, sent_s, (requests.begun_s[request], requests.transfer_s[request]))
    enter_ranked_counts(pool)


@compiled
def empty_ranked_pool(
    worker: RankedWorker,
    slowdown: FloatArray,
    steps: DecodeSteps,
    queue: DecodeQueue,
    result: DecodeResult,
) -> RankedPool:
    """Return idle workers, one per entry of `slowdown`.

    Parameters
    ----------
    worker, slowdown, steps, result
        Arguments of `decode_by_ranks`.
    queue
        State of the requests, before any has come.

    Returns
    -------
    RankedPool
        The workers; no request of `result` has a first token.
    """
    limits, ranks, workers = worker.rank, worker.ranks, len(slowdown)
    rows = workers * ranks
    result.first_s[:] = -1.0
    return RankedPool(
        limits,
        ranks,
        worker.router,
        queue,
        empty_pool(np.repeat(slowdown, ranks), steps, min(limits.slots, len(queue.prompt))),
        result,
        np.zeros(rows, np.int64),
        np.zeros(rows),
        np.zeros(workers, np.int64),
        np.zeros(workers, np.int64),
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int64),
    )


@inlined
def receive_cache(pool: RankedPool, request: int, sent_s: float, transfer: tuple[float, float]) -> None:
    """Put a request whose cache is sent into the queue of a rank of its worker.

    `transfer` is when the cache began to leave, and the seconds that it takes on the link of the rank.
    """
    worker, result = pool.result.worker[request], pool.result
    _count_pending(pool, worker, sent_s)
    row = worker * pool.ranks + choose_rank(pool.router, pool.requests, pool.tokens, pool.turns[worker])
    pool.turns[worker] += 1
    received_s = link_end_s(pool.link_s, row, transfer[0], transfer[1])
    result.ready_s[request] = max(sent_s, received_s) + pool.limits.transfer_latency_s
    pool.state.counters[row, LOAD] += 1
    pool.held[row] += pool.queue.prompt[request]
    enqueue(pool.state.waiting[row], pool.queue.follower, request)


@compiled
def enter_ranked_counts(pool: RankedPool) -> None:
    """Enter what the ranks of each worker counted."""
    state, result = pool.state, pool.result
    for worker in range(len(result.peak_tokens)):
        first = worker * pool.ranks
        result.steps[worker, 0] = state.counters[first, STEP]
        result.steps[worker, 1] = state.counters[first, OUTSIDE]
        for row in range(first, first + pool.ranks):
            result.usage[worker, 0] += state.clock_s[row, BATCH_INTEGRAL]
            result.usage[worker, 1] += state.clock_s[row, CONTEXT_INTEGRAL]
            result.peak_tokens[worker] = max(result.peak_tokens[worker], state.counters[row, PEAK])


@inlined
def least_loaded_worker(pool: RankedPool, now_s: float, first: int) -> int:
    """Return the worker with the fewest unfinished requests; a tie goes to the next one from `first` on."""
    for worker in range(len(pool.load)):
        pool.load[worker] = _count_pending(pool, worker, now_s)
    return least_loaded(pool.load, first)


@inlined
def _count_pending(pool: RankedPool, worker: int, now_s: float) -> int:
    """Count the unfinished requests of each rank of a worker, and their prompts' tokens; return their number.

    A step in progress ends after `now_s`.
    """
    state, total = pool.state, 0
    for rank in range(pool.ranks):
        row = worker * pool.ranks + rank
        pool.requests[rank], pool.tokens[rank] = state.counters[row, LOAD], pool.held[row]
        if state.clock_s[row, NOW] > now_s:
            batch = state.counters[row, BATCH]
            for slot in range(batch, batch + state.counters[row, JUST_ENDED]):
                pool.requests[rank] += 1
                pool.tokens[rank] += pool.queue.prompt[state.active[row, slot]]
        total += pool.requests[rank]
    return int(total)


@inlined
def _rank(pool: DecodePool, row: int) -> DecodeState:
    """Return the state of one rank, as views; inlined, they count no references to arrays."""
    return DecodeState(
        pool.slowdown[row],
        pool.steps,
        pool.active[row],
        pool.finish[row],
        pool.paused[row],
        pool.waiting[row],
        pool.counters[row],
        pool.clock_s[row],
    )


@inlined
def fill_batches(pool: RankedPool, worker: int, until_s: float) -> bool:
    """Fill the batches for the next step; return whether there is one that starts before `until_s`.

    Resumed and admitted requests may take the clock past it.
    """
    limits, queue, state, first = pool.limits, pool.queue, pool.state, worker * pool.ranks
    clock_s, counters = state.clock_s, state.counters
    while clock_s[first, NOW] < until_s:
        for row in range(first, first + pool.ranks):
            if counters[row, PAUSED] > 0:
                resume(limits, queue, _rank(state, row))
        _wait_for_all(pool, first)
        if clock_s[first, NOW] >= until_s:  # later arrivals are not routed yet
            return False
        runs, next_s = False, np.inf
        for row in range(first, first + pool.ranks):
            head = state.waiting[row, HEAD]
            if head != UNASSIGNED and queue.ready_s[head] <= clock_s[row, NOW]:
                admit_arrived(limits, queue, _rank(state, row), pool.result.start_s)
            elif head != UNASSIGNED:
                next_s = min(next_s, queue.ready_s[head])
            runs = runs or counters[row, BATCH] > 0
        _wait_for_all(pool, first)
        if runs:
            if limits.policy == EVICT_NEWEST:
                _pause_newest(pool, first)
            return True
        if next_s == np.inf:
            return False
        for row in range(first, first + pool.ranks):
            clock_s[row, NOW] = next_s
    return False


@inlined
def _wait_for_all(pool: RankedPool, first: int) -> None:
    """Let all ranks wait for those whose requests were resumed or received."""
    clock_s, latest_s = pool.state.clock_s, 0.0
    for row in range(first, first + pool.ranks):
        latest_s = max(latest_s, clock_s[row, NOW])
    for row in range(first, first + pool.ranks):
        waits_s = latest_s - clock_s[row, NOW]
        if waits_s > 0:
            pass_time(pool.limits, _rank(pool.state, row), waits_s, pool.state.counters[row, CONTEXT])
            clock_s[row, NOW] = latest_s


@inlined
def _pause_newest(pool: RankedPool, first: int) -> None:
    """Pause the youngest sequences of every rank whose cache the next step would not fit."""
    for row in range(first, first + pool.ranks):
        state = _rank(pool.state, row)
        while room(pool.limits, state) < state.counters[BATCH]:
            pause(pool.queue, state)


@inlined
def generate_on_ranks(pool: RankedPool, worker: int, until_s: float) -> None:
    """Make the steps of a worker until a batch can change; none starts at `until_s` or later."""
    limits, queue, result, first = pool.limits, pool.queue, pool.result, worker * pool.ranks
    counters, table = pool.state.counters, pool.state.steps
    batch, leader = 0, first
    for row in range(first, first + pool.ranks):
        batch = max(batch, counters[row, BATCH])
        ahead = counters[row, CONTEXT] - counters[leader, CONTEXT]
        if ahead > 0 or (ahead == 0 and counters[row, BATCH] > counters[leader, BATCH]):
            leader = row
    context, growth = counters[leader, CONTEXT], counters[leader, BATCH]
    segment = segment_of(table, batch, context)
    slowdown, token_s = pool.state.slowdown[first], table.token_s[batch, segment]
    step_s = slowdown * (table.batch_s[batch, segment] + token_s * context)
    step, steps = GrowingStep(step_s, slowdown * token_s * growth), NEVER
    if table.bound_tokens[segment] < np.inf:
        steps = max(1, math.ceil((table.bound_tokens[segment] * batch - context) / growth))
    for row in range(first, first + pool.ranks):
        state = _rank(pool.state, row)
        until_s = min(until_s, next_join_s(limits, queue, state))
        if counters[row, BATCH] > 0:
            steps = min(steps, steps_to_change(limits, state))
        gains = counters[row, BATCH] - growth
        if gains > 0:  # up to the last step in which the leader reads the most
            steps = min(steps, (context - counters[row, CONTEXT]) // gains + 1)
    steps = min(steps, steps_before(step, max(0.0, until_s - pool.state.clock_s[first, NOW])))
    if not table.is_known[batch, segment]:
        counters[first, OUTSIDE] += steps
    for row in range(first, first + pool.ranks):
        state = _rank(pool.state, row)
        for slot in range(counters[row, STEPPED], counters[row, BATCH]):
            if result.first_s[state.active[slot]] < 0:
                result.first_s[state.active[slot]] = state.clock_s[NOW] + step_s
        advance(limits, state, steps, step)
        retire(queue, state, result.done_s)
        for slot in range(counters[row, BATCH], counters[row, BATCH] + counters[row, JUST_ENDED]):
            pool.held[row] -= queue.prompt[state.active[slot]]
