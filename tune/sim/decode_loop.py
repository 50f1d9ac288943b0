"""Run the serving loops of the decode pool; steps between changes of a batch are summed in closed form."""

from __future__ import annotations

import math

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
    OUTSIDE,
    PAUSED,
    PEAK,
    RESERVED,
    STEP,
    STEPPED,
    WHOLE_BATCHES,
    DecodeQueue,
    DecodeRequests,
    DecodeResult,
    DecodeState,
    DecodeSteps,
    DecodeWorker,
    GrowingStep,
    empty_pool,
    is_due,
    pending_requests,
    state_of,
)
from tune.sim.queues import HEAD, UNASSIGNED, dequeue, enqueue, least_loaded, link_end_s

NEVER = np.iinfo(np.int64).max


@compiled
def decode(
    limits: DecodeWorker,
    slowdown: FloatArray,
    steps: DecodeSteps,
    requests: DecodeRequests,
    result: DecodeResult,
) -> None:
    """Serve requests first come, first served, on one worker per entry of `slowdown`.

    Parameters
    ----------
    limits
        What each worker may do. A request must fit its empty cache.
    slowdown
        Factor on the steps of each worker, shape (workers,).
    steps
        Seconds of a step for each batch size and context.
    requests
        Requests with their KV transfers.
    result
        Filled; its `worker` says which requests are routed already.

    Notes
    -----
    Under EVICT_NEWEST, when the next step would not fit the cache, the youngest sequence is paused: it
    loses its cache, is resumed before any other, and its recompute holds up the whole batch. The least loaded
    worker has the fewest requests that were routed to it and are not done, at the moment of routing.
    """
    count, workers = len(requests.sent_s), len(slowdown)
    follower, generated = np.full(count, UNASSIGNED, np.int64), np.zeros(count, np.int64)
    queue = DecodeQueue(
        result.ready_s, requests.prompt, requests.answer, requests.reserved, follower, generated
    )
    pool = empty_pool(slowdown, steps, min(limits.slots, count))
    link_s = np.zeros(workers)
    result.first_s[:] = -1.0
    for request in requests.order:
        sent_s, transfer_s = requests.sent_s[request], requests.transfer_s[request]
        if result.worker[request] == UNASSIGNED:
            for worker in range(workers):
                if is_due(pool, worker, sent_s):
                    _serve(limits, queue, state_of(pool, worker), result, sent_s)
            result.worker[request] = least_loaded(pending_requests(pool, sent_s), request % workers)
        worker = result.worker[request]
        arrived_s = max(sent_s, link_end_s(link_s, worker, requests.begun_s[request], transfer_s))
        result.ready_s[request] = arrived_s + limits.transfer_latency_s
        pool.counters[worker, LOAD] += 1
        enqueue(pool.waiting[worker], follower, request)
    for worker in range(workers):
        _serve(limits, queue, state_of(pool, worker), result, np.inf)
    result.usage[:] = pool.clock_s[:, BATCH_INTEGRAL:]
    result.peak_tokens[:] = pool.counters[:, PEAK]
    result.steps[:, 0] = pool.counters[:, STEP]
    result.steps[:, 1] = pool.counters[:, OUTSIDE]


@compiled
def _serve(
    limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, result: DecodeResult, until_s: float
) -> None:
    """Run every step of one worker that starts before `until_s`."""
    while begin_steps(limits, queue, state, result, until_s):
        generate(limits, queue, state, result, until_s)


@inlined
def begin_steps(
    limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, result: DecodeResult, until_s: float
) -> bool:
    """Fill the batch for its next step; return whether there is one that starts before `until_s`.

    Resumed and admitted requests may take the clock past it.
    """
    counters, clock_s = state.counters, state.clock_s
    while clock_s[NOW] < until_s:
        _resume(limits, queue, state)
        if clock_s[NOW] >= until_s:  # later arrivals are not routed yet
            return False
        _admit(limits, queue, state, result.start_s)
        if counters[BATCH] > 0:
            while limits.policy == EVICT_NEWEST and room(limits, state) < counters[BATCH]:
                pause(queue, state)
            return True
        if state.waiting[HEAD] == UNASSIGNED:
            return False
        clock_s[NOW] = queue.ready_s[state.waiting[HEAD]]
    return False


@inlined
def generate(
    limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, result: DecodeResult, until_s: float
) -> None:
    """Make the steps of a batch that is not empty until it can change; none starts at `until_s` or later."""
    counters, clock_s = state.counters, state.clock_s
    batch, segment = counters[BATCH], segment_of(state)
    token_s = state.steps.token_s[batch, segment]
    step_s = state.slowdown * (state.steps.batch_s[batch, segment] + token_s * counters[CONTEXT])
    for slot in range(counters[STEPPED], counters[BATCH]):
        if result.first_s[state.active[slot]] < 0:
            result.first_s[state.active[slot]] = clock_s[NOW] + step_s
    step = GrowingStep(step_s, state.slowdown * token_s * batch)
    steps = _steps(limits, queue, state, step, until_s)
    steps = min(steps, _steps_in_segment(state, segment))
    if not state.steps.is_known[batch, segment]:
        counters[OUTSIDE] += steps
    _advance(limits, state, steps, step)
    retire(queue, state, result.done_s)


@inlined
def segment_of(state: DecodeState) -> int:
    """Return the segment of the step times that the mean context is in."""
    bound_tokens, segment = state.steps.bound_tokens, 0
    while bound_tokens[segment] * state.counters[BATCH] <= state.counters[CONTEXT]:
        segment += 1
    return segment


@compiled
def _steps_in_segment(state: DecodeState, segment: int) -> int:
    """Return the steps that begin before the mean context, one token longer with each, leaves the segment."""
    bound = state.steps.bound_tokens[segment]
    if bound == np.inf:
        return NEVER
    return int(max(1, math.ceil(bound - state.counters[CONTEXT] / state.counters[BATCH])))


@inlined
def room(limits: DecodeWorker, state: DecodeState) -> int:
    """Return the cache tokens left if every sequence wastes as much of its last block as it can."""
    slack = (limits.kv_block_tokens - 1) * state.counters[BATCH]
    return int(limits.kv_tokens - state.counters[CONTEXT] - slack)


@compiled
def _fits(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, request: int) -> bool:
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


@compiled
def _resume(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState) -> None:
    """Resume paused requests, the oldest first; their cache is computed again."""
    counters = state.counters
    while counters[PAUSED] > 0:
        request = state.paused[counters[PAUSED] - 1]
        if not _fits(limits, queue, state, request):
            return
        counters[PAUSED] -= 1
        tokens = queue.prompt[request] + queue.generated[request]
        chunks = -(-tokens // limits.token_budget)
        lost_s = limits.recompute_step_s * chunks + limits.recompute_token_s * tokens
        lost_s += limits.recompute_pair_s * (tokens * (tokens / 2))
        pass_time(limits, state, state.slowdown * lost_s, counters[CONTEXT])
        join(queue, state, request)


@compiled
def _admit(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, start_s: FloatArray) -> None:
    """Admit arrived requests in order; STATIC_BATCH admits them to an empty engine only."""
    counters, now_s = state.counters, state.clock_s[NOW]
    if counters[PAUSED] > 0 or (limits.policy == WHOLE_BATCHES and counters[BATCH] > 0):
        return
    while state.waiting[HEAD] != UNASSIGNED:
        request = state.waiting[HEAD]
        if queue.ready_s[request] > now_s or not _fits(limits, queue, state, request):
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


@compiled
def _steps(
    limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, step: GrowingStep, until_s: float
) -> int:
    """Return the steps until the batch can change.

    It changes when an answer ends, a request that fits arrives, or the cache is full. No step starts at
    `until_s` or later.
    """
    counters, head = state.counters, state.waiting[HEAD]
    batch = counters[BATCH]
    steps = counters[NEXT_END] - counters[STEP]
    if limits.policy == EVICT_NEWEST:
        steps = min(steps, room(limits, state) // batch)
    joins = counters[PAUSED] == 0 and limits.policy != WHOLE_BATCHES and head != UNASSIGNED
    if joins and _fits(limits, queue, state, head):
        until_s = min(until_s, queue.ready_s[head])
    if until_s < np.inf:
        # smallest m with m x step + growth x m (m - 1) / 2 >= wait, each step longer by `growth`
        wait_s = until_s - state.clock_s[NOW]
        linear_s = step.first_s - step.growth_s / 2
        root = 2 * wait_s / (linear_s + math.sqrt(linear_s * linear_s + 2 * step.growth_s * wait_s))
        steps = min(steps, max(1, math.ceil(root)))
    return int(steps)


@compiled
def _advance(limits: DecodeWorker, state: DecodeState, steps: int, step: GrowingStep) -> None:
    """Make `steps` steps, of which `step` is the first."""
    counters = state.counters
    batch = counters[BATCH]
    mean_context = counters[CONTEXT] + batch * ((steps + 1) / 2)
    pass_time(limits, state, steps * step.first_s + step.growth_s * (steps * (steps - 1) / 2), mean_context)
    counters[STEP] += steps
    counters[CONTEXT] += batch * steps
    taken = counters[RESERVED]
    if limits.policy == EVICT_NEWEST:
        taken = limits.kv_tokens - room(limits, state)
    counters[PEAK] = max(counters[PEAK], taken)


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
