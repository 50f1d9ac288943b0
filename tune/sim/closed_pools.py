"""Define the data of the closed loop: both pools, the requests of the users, and the state of all of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined
from tune.sim.decode_batch import NEVER
from tune.sim.decode_pool import (
    BATCH,
    NEXT_END,
    NOW,
    PAUSED,
    STEP,
    DecodeQueue,
    DecodeResult,
    DecodeSteps,
)
from tune.sim.event_heap import EventHeap, empty_heap
from tune.sim.prefill_pool import BATCH as PROMPTS
from tune.sim.prefill_pool import NOW as READER_NOW
from tune.sim.prefill_pool import PrefillQueue, PrefillResult, PrefillTable
from tune.sim.queues import HEAD, UNASSIGNED
from tune.sim.ranks.ranked_decode import RankedPool, RankedWorker, empty_ranked_pool
from tune.sim.ranks.ranked_prefill import RankedReader, RankedReaders, idle_readers
from tune.sim.routing import TurnRouter

ARRIVES, READ, LEFT, ANSWERED = range(4)
"""What happens next to a request: it reaches the prefill pool, its prompt is read, its KV cache has left the
prefill worker, its user has the answer."""

SENT, ROUTED = range(2)
"""Counts of a closed loop: requests that users have sent, and those that decode workers were chosen for."""


class ClosedPools(NamedTuple):
    """Describe both pools: limits of a worker, factor on the steps of each worker (workers,), step times.

    A worker without attention data parallelism has one rank. No step of a decode worker takes less than
    `shortest_s`.
    """

    prefill: RankedReader
    decode: RankedWorker
    prefill_slowdown: FloatArray
    decode_slowdown: FloatArray
    prefill_table: PrefillTable
    decode_steps: DecodeSteps
    shortest_s: float
    router: TurnRouter


class ClosedRequests(NamedTuple):
    """Hold the requests of `users` users in the order in which they are sent, arrays of shape (n,).

    A request reaches the prefill pool `overhead_s` after it is sent; its user has the whole answer
    `passed_on_s` (n,) after its last token is made. Its KV cache takes `send_s` on the link of the prefill
    worker's rank and `receive_s` on that of the decode worker's. `context`, `answer` and `reserved` are its
    prompt, its answer and its reserved cache tokens in the unit of the decode pool: one step of a sequence.
    """

    users: int
    overhead_s: float
    passed_on_s: FloatArray
    prompt: IntArray
    context: IntArray
    answer: IntArray
    reserved: IntArray
    send_s: FloatArray
    receive_s: FloatArray


class ClosedResult(NamedTuple):
    """Receive the results: when each request was sent (n,), and those of both pools, as open loops do."""

    sent_s: FloatArray
    prefill: PrefillResult
    decode: DecodeResult


class ClosedRun(NamedTuple):
    """Hold a closed loop: what serves, what is asked, and what becomes of it."""

    pools: ClosedPools
    requests: ClosedRequests
    result: ClosedResult


class ClosedState(NamedTuple):
    """Hold the state of a closed loop.

    `events` are when each request that waits for no worker moves on.
    `reads_s` and `steps_s` are when each worker of a pool begins its next step, infinite where it has none;
    no answer of a decode worker ends before `ends_s`. `turns` are the requests that each router has routed.
    `stage` (n,) is what happens next to a request. `counts` are indexed by SENT and ROUTED.
    """

    events: EventHeap
    prefill: RankedReaders
    decode: RankedPool
    reads_s: FloatArray
    steps_s: FloatArray
    ends_s: FloatArray
    turns: IntArray
    stage: IntArray
    counts: IntArray


@compiled
def new_state(pools: ClosedPools, requests: ClosedRequests, result: ClosedResult) -> ClosedState:
    """Return idle workers, before any request is sent."""
    count, decoders = len(requests.prompt), len(pools.decode_slowdown)
    prompts = PrefillQueue(
        np.zeros(count),
        requests.prompt,
        requests.send_s,
        requests.prompt.copy(),
        np.full(count, UNASSIGNED, np.int64),
        np.full(count, UNASSIGNED, np.int64),
        pools.prefill_table,
    )
    answers = DecodeQueue(
        result.decode.ready_s,
        requests.context,
        requests.answer,
        requests.reserved,
        np.full(count, UNASSIGNED, np.int64),
        np.zeros(count, np.int64),
    )
    return ClosedState(
        empty_heap(count),
        idle_readers(pools.prefill, pools.prefill_slowdown, prompts, result.prefill),
        empty_ranked_pool(pools.decode, pools.decode_slowdown, pools.decode_steps, answers, result.decode),
        np.full(len(pools.prefill_slowdown), np.inf),
        np.full(decoders, np.inf),
        np.full(decoders, np.inf),
        np.zeros(len(pools.router.begin), np.int64),
        np.full(count, ARRIVES, np.int64),
        np.zeros(2, np.int64),
    )


@inlined
def next_read_s(pool: RankedReaders, worker: int) -> float:
    """Return when a prefill worker goes on, infinite without prompts."""
    first, next_s = worker * pool.ranks, np.inf
    now_s = pool.state.clock_s[first, READER_NOW]
    for row in range(first, first + pool.ranks):
        head = pool.state.waiting[row, HEAD]
        if pool.state.counters[row, PROMPTS] > 0:
            return float(now_s)
        if head != UNASSIGNED:
            next_s = min(next_s, max(now_s, pool.queue.arrival_s[head]))
    return next_s


@inlined
def next_step_s(pool: RankedPool, worker: int) -> float:
    """Return when a decode worker goes on, infinite without requests."""
    first, next_s = worker * pool.ranks, np.inf
    now_s = pool.state.clock_s[first, NOW]
    for row in range(first, first + pool.ranks):
        head = pool.state.waiting[row, HEAD]
        if pool.state.counters[row, BATCH] > 0 or pool.state.counters[row, PAUSED] > 0:
            return float(now_s)
        if head != UNASSIGNED:
            next_s = min(next_s, max(now_s, pool.queue.ready_s[head]))
    return next_s


@inlined
def next_end_s(pool: RankedPool, worker: int, shortest_s: float) -> float:
    """Return a time before which no answer of a decode worker ends, by the shortest steps of its batches."""
    first, steps = worker * pool.ranks, NEVER
    begin_s = next_step_s(pool, worker)
    for row in range(first, first + pool.ranks):
        counters = pool.state.counters[row]
        if counters[PAUSED] > 0 or pool.state.waiting[row, HEAD] != UNASSIGNED:
            return begin_s
        if counters[BATCH] > 0:
            steps = min(steps, counters[NEXT_END] - counters[STEP])
    return begin_s if steps == NEVER else float(begin_s + (steps - 1) * shortest_s)
