"""Run the serving loops of the decode pool; steps between changes of a batch are summed in closed form."""

from __future__ import annotations

import math

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.jit import compiled, inlined
from tune.sim.decode_batch import (
    NEVER,
    admit_arrived,
    fits,
    pass_time,
    pause,
    resume,
    retire,
    room,
)
from tune.sim.decode_pool import (
    BATCH,
    BATCH_INTEGRAL,
    CONTEXT,
    EVICT_NEWEST,
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
from tune.sim.queues import HEAD, UNASSIGNED, enqueue, least_loaded, link_end_s


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
        resume(limits, queue, state)
        if clock_s[NOW] >= until_s:  # later arrivals are not routed yet
            return False
        admit_arrived(limits, queue, state, result.start_s)
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
    batch = counters[BATCH]
    segment = segment_of(state.steps, batch, counters[CONTEXT])
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
    advance(limits, state, steps, step)
    retire(queue, state, result.done_s)


@inlined
def segment_of(steps: DecodeSteps, batch: int, context: int) -> int:
    """Return the segment of the step times that the mean of `context` tokens of `batch` sequences is in."""
    bound_tokens, segment = steps.bound_tokens, 0
    while bound_tokens[segment] * batch <= context:
        segment += 1
    return segment


@compiled
def _steps_in_segment(state: DecodeState, segment: int) -> int:
    """Return the steps that begin before the mean context, one token longer with each, leaves the segment."""
    bound = state.steps.bound_tokens[segment]
    if bound == np.inf:
        return NEVER
    return int(max(1, math.ceil(bound - state.counters[CONTEXT] / state.counters[BATCH])))


@compiled
def _steps(
    limits: DecodeWorker, queue: DecodeQueue, state: DecodeState, step: GrowingStep, until_s: float
) -> int:
    """Return the steps until the batch can change, of which none starts at `until_s` or later."""
    until_s = min(until_s, next_join_s(limits, queue, state))
    return min(steps_to_change(limits, state), steps_before(step, until_s - state.clock_s[NOW]))


@inlined
def steps_to_change(limits: DecodeWorker, state: DecodeState) -> int:
    """Return the steps until an answer of a batch that is not empty ends, or the cache is full."""
    steps = state.counters[NEXT_END] - state.counters[STEP]
    if limits.policy == EVICT_NEWEST:
        steps = min(steps, room(limits, state) // state.counters[BATCH])
    return int(steps)


@inlined
def next_join_s(limits: DecodeWorker, queue: DecodeQueue, state: DecodeState) -> float:
    """Return when a request that fits arrives, infinite if none is on its way."""
    head = state.waiting[HEAD]
    joins = state.counters[PAUSED] == 0 and limits.policy != WHOLE_BATCHES and head != UNASSIGNED
    if joins and fits(limits, queue, state, head):
        return float(queue.ready_s[head])
    return np.inf


@inlined
def steps_before(step: GrowingStep, wait_s: float) -> int:
    """Return the steps, one at least, that start within `wait_s` seconds."""
    if wait_s == np.inf:
        return NEVER
    # smallest m with m x step + growth x m (m - 1) / 2 >= wait, each step longer by `growth`
    linear_s = step.first_s - step.growth_s / 2
    root = 2 * wait_s / (linear_s + math.sqrt(linear_s * linear_s + 2 * step.growth_s * wait_s))
    return int(max(1, math.ceil(root)))


@inlined
def advance(limits: DecodeWorker, state: DecodeState, steps: int, step: GrowingStep) -> None:
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
