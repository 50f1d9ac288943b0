"""Change the batch of a decode worker: admit_arrived, resume, pause and retire its sequences."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined
from tune.sim.decode_pool import (
    BATCH,
    BATCH_INTEGRAL,
    CONTEXT,
    CONTEXT_INTEGRAL,
    EVICT_NEWEST,
    JUST_ENDED,
    LOAD,
    NEXT_END,
    NOW,
    PAUSED,
    RESERVED,
    STEP,
    STEPPED,
    WHOLE_BATCHES,
    DecodeQueue,
    DecodeState,
    DecodeWorker,
)
from tune.sim.queues import HEAD, UNASSIGNED, dequeue

NEVER = np.iinfo(np.int64).max
"""Stands for a step that never comes."""


@inlined
def room(limits: DecodeWorker, state: DecodeState) -> int:
    """Return the cache tokens left if every sequence wastes as much of its last block as it can."""
    slack = (limits.kv_block_tokens - 1) * state.counters[BATCH]
    return int(limits.kv_tokens - state.counters[CONTEXT] - slack)


@inlined
def fits(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, request: int) -> bool:
    """Return whether slot and cache are free: for the whole answer, under EVICT_NEWEST for one step."""
    batch = state.counters[BATCH]
    if batch >= len(state.active):
        return False
    if limits.policy == EVICT_NEWEST:
        context = queue.prompt[request] + queue.generated[request]
        return bool(room(limits, state) - context - (limits.kv_block_tokens - 1) >= batch + 1)
    return bool(state.counters[RESERVED] + queue.reserved[request] <= limits.kv_tokens)


@inlined
def join(queue: DecodeQueue, state: DecodeState, request: int) -> None:
    """Add a request to the batch."""
    counters = state.counters
    finish = counters[STEP] + queue.answer[request] - queue.generated[request]
    counters[NEXT_END] = min(counters[NEXT_END], finish) if counters[BATCH] > 0 else finish
    state.active[counters[BATCH]] = request
    state.finish[counters[BATCH]] = finish
    counters[CONTEXT] += queue.prompt[request] + queue.generated[request]
    counters[RESERVED] += queue.reserved[request]
    counters[BATCH] += 1


@inlined
def resume(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState) -> None:
    """Resume paused requests, the oldest first; their cache is computed again."""
    counters = state.counters
    while counters[PAUSED] > 0:
        request = state.paused[counters[PAUSED] - 1]
        if not fits(limits, queue, state, request):
            return
        counters[PAUSED] -= 1
        tokens = queue.prompt[request] + queue.generated[request]
        chunks = -(-tokens // limits.token_budget)
        lost_s = limits.recompute_step_s * chunks + limits.recompute_token_s * tokens
        lost_s += limits.recompute_pair_s * (tokens * (tokens / 2))
        pass_time(limits, state, state.slowdown * lost_s, counters[CONTEXT])
        join(queue, state, request)


@inlined
def admit_arrived(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, start_s: FloatArray) -> None:
    """Admit arrived requests in order; STATIC_BATCH admits them to an empty engine only."""
    counters, now_s = state.counters, state.clock_s[NOW]
    if counters[PAUSED] > 0 or (limits.policy == WHOLE_BATCHES and counters[BATCH] > 0):
        return
    while state.waiting[HEAD] != UNASSIGNED:
        request = state.waiting[HEAD]
        if queue.ready_s[request] > now_s or not fits(limits, queue, state, request):
            return
        start_s[request] = now_s
        if limits.stall_token_s > 0:
            received_s = limits.stall_token_s * queue.prompt[request]
            pass_time(limits, state, state.slowdown * received_s, counters[CONTEXT])
        join(queue, state, request)
        dequeue(state.waiting, queue.follower)


@inlined
def pause(queue: DecodeQueue, state: DecodeState) -> None:
    """Pause the youngest sequence of the batch."""
    counters = state.counters
    counters[BATCH] -= 1
    counters[STEPPED] = min(counters[STEPPED], counters[BATCH])
    request = state.active[counters[BATCH]]
    queue.generated[request] = queue.answer[request] - (state.finish[counters[BATCH]] - counters[STEP])
    counters[CONTEXT] -= queue.prompt[request] + queue.generated[request]
    counters[RESERVED] -= queue.reserved[request]
    state.paused[counters[PAUSED]] = request
    counters[PAUSED] += 1
    counters[NEXT_END] = _earliest(state.finish, counters[BATCH])


@inlined
def pass_time(limits: DecodeWorker, state: DecodeState, duration_s: float, context: float) -> None:
    """Advance the clock, and the integrals as far as the window reaches."""
    clock_s = state.clock_s
    counted_s = max(0.0, min(clock_s[NOW] + duration_s, limits.window_s) - clock_s[NOW])
    clock_s[BATCH_INTEGRAL] += counted_s * state.counters[BATCH]
    clock_s[CONTEXT_INTEGRAL] += counted_s * context
    clock_s[NOW] += duration_s


@inlined
def retire(queue: DecodeQueue, state: DecodeState, done_s: FloatArray) -> None:
    """Remove finished answers; the others keep their order, so the last is the youngest.

    Those that have just ended stand behind the batch in `active`.
    """
    counters = state.counters
    counters[JUST_ENDED] = 0
    counters[STEPPED] = counters[BATCH]
    if counters[STEP] < counters[NEXT_END]:
        return
    kept, next_end = 0, NEVER
    for slot in range(counters[BATCH]):
        request, finish = state.active[slot], state.finish[slot]
        if finish > counters[STEP]:
            state.active[slot], state.active[kept] = state.active[kept], request
            state.finish[kept] = finish
            next_end = min(next_end, finish)
            kept += 1
            continue
        done_s[request] = state.clock_s[NOW]
        counters[CONTEXT] -= queue.prompt[request] + queue.answer[request]
        counters[RESERVED] -= queue.reserved[request]
    counters[JUST_ENDED] = counters[BATCH] - kept
    counters[LOAD] -= counters[JUST_ENDED]
    counters[BATCH], counters[STEPPED], counters[NEXT_END] = kept, kept, next_end


@compiled
def _earliest(finish: IntArray, batch: int) -> int:
    """Return the step after which the first answer of the batch ends, NEVER of an empty batch."""
    earliest = NEVER
    for slot in range(batch):
        earliest = min(earliest, finish[slot])
    return earliest
