"""Define the data of the closed loop: both pools, the requests of the users, and the state of all of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined
from tune.sim.decode_pool import (
    BATCH,
    NEXT_END,
    NOW,
    PAUSED,
    STEP,
    DecodePool,
    DecodeQueue,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
    empty_pool,
)
from tune.sim.event_heap import EventHeap, empty_heap
from tune.sim.prefill_pool import (
    FREE_BLOCKS,
    PrefillPoolState,
    PrefillQueue,
    PrefillResult,
    PrefillTable,
    PrefillWorker,
    empty_prefill_pool,
)
from tune.sim.queues import HEAD, UNASSIGNED
from tune.sim.routing import TurnRouter

ARRIVES, READ, LEFT, ANSWERED = range(4)
"""What happens next to a request: it reaches the prefill pool, its prompt is read, its KV cache has left the
prefill worker, its user has the answer."""

SENT, ROUTED = range(2)
"""Counts of a closed loop: requests that users have sent, and those that decode workers were chosen for."""


class ClosedPools(NamedTuple):
    """Describe both pools: limits of a worker, factor on the steps of each worker (workers,), step times.

    No step of a decode worker takes less than `shortest_s`.
    """

    prefill: PrefillWorker
    decode: DecodeWorker
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
    worker and `receive_s` on that of the decode worker. `reserved` counts its cache tokens.
    """

    users: int
    overhead_s: float
    passed_on_s: FloatArray
    prompt: IntArray
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
    no answer of a decode worker ends before `ends_s`. `link_s` is when the link of a decode worker is free,
    `turns` are the requests that each router has routed. `stage` (n,) is what happens next to a request.
    `counts` are indexed by SENT and ROUTED.
    """

    events: EventHeap
    prompts: PrefillQueue
    answers: DecodeQueue
    prefill: PrefillPoolState
    decode: DecodePool
    reads_s: FloatArray
    steps_s: FloatArray
    ends_s: FloatArray
    link_s: FloatArray
    turns: IntArray
    stage: IntArray
    counts: IntArray


@compiled
def new_state(pools: ClosedPools, requests: ClosedRequests, result: ClosedResult) -> ClosedState:
    """Return idle workers, before any request is sent."""
    count, limits, decoders = len(requests.prompt), pools.prefill, len(pools.decode_slowdown)
    prefill = empty_prefill_pool(pools.prefill_slowdown, min(limits.max_sequences, count))
    prefill.counters[:, FREE_BLOCKS] = limits.kv_tokens // limits.kv_block_tokens
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
        requests.prompt,
        requests.answer,
        requests.reserved,
        np.full(count, UNASSIGNED, np.int64),
        np.zeros(count, np.int64),
    )
    result.decode.first_s[:] = -1.0
    return ClosedState(
        empty_heap(count),
        prompts,
        answers,
        prefill,
        empty_pool(pools.decode_slowdown, pools.decode_steps, min(pools.decode.slots, count)),
        np.full(len(pools.prefill_slowdown), np.inf),
        np.full(decoders, np.inf),
        np.full(decoders, np.inf),
        np.zeros(decoders),
        np.zeros(len(pools.router.begin), np.int64),
        np.full(count, ARRIVES, np.int64),
        np.zeros(2, np.int64),
    )


@inlined
def next_read_s(state: ClosedState, worker: int) -> float:
    """Return when a prefill worker goes on, infinite without prompts."""
    now_s, head = state.prefill.clock_s[worker, NOW], state.prefill.waiting[worker, HEAD]
    if state.prefill.counters[worker, 0] > 0:
        return float(now_s)
    if head == UNASSIGNED:
        return np.inf
    return float(max(now_s, state.prompts.arrival_s[head]))


@inlined
def next_step_s(state: ClosedState, worker: int) -> float:
    """Return when a decode worker goes on, infinite without requests."""
    counters, head = state.decode.counters[worker], state.decode.waiting[worker, HEAD]
    now_s = state.decode.clock_s[worker, NOW]
    if counters[BATCH] > 0 or counters[PAUSED] > 0:
        return float(now_s)
    if head == UNASSIGNED:
        return np.inf
    return float(max(now_s, state.answers.ready_s[head]))


@inlined
def next_end_s(pools: ClosedPools, state: ClosedState, worker: int) -> float:
    """Return a time before which no answer of a decode worker ends, by the shortest steps of its batch."""
    counters = state.decode.counters[worker]
    begin_s = next_step_s(state, worker)
    if counters[BATCH] == 0 or counters[PAUSED] > 0 or state.decode.waiting[worker, HEAD] != UNASSIGNED:
        return begin_s
    steps = counters[NEXT_END] - counters[STEP]
    return float(begin_s + (steps - 1) * pools.shortest_s)
