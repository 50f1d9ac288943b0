"""The serving loops of the decode pool: steps between two changes of a batch are summed in closed form."""

from __future__ import annotations

import math

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.jit import compiled
from tune.sim.decode_pool import (
    BATCH,
    BATCH_S,
    CONTEXT,
    CONTEXT_S,
    JUST_ENDED,
    LOAD,
    MAX_UTILIZATION,
    NEXT_END,
    NOW,
    PAUSED,
    PEAK,
    PROMISED,
    STATIC_BATCH,
    STEP,
    STEPPED,
    DecodeQueue,
    DecodeRequests,
    DecodeResult,
    DecodeState,
    DecodeWorker,
    empty_pool,
    is_due,
    pending_requests,
    state_of,
)
from tune.sim.queues import HEAD, UNASSIGNED, dequeue, enqueue, least_loaded, link_end_s


@compiled
def decode(
    limits: DecodeWorker,
    slowdown: FloatArray,
    batch_s: FloatArray,
    requests: DecodeRequests,
    served: DecodeResult,
) -> None:
    """Serve `requests` first come, first served, on one worker per entry of `slowdown`. Fills `served`.

    `batch_s` has shape (slots + 1,). Under MAX_UTILIZATION, when the next step would not fit the cache, the
    youngest sequence is paused: it loses its cache, comes back before any other, and its recompute holds up
    the whole batch. A request must fit the empty cache. Least loaded counts requests that were routed to a
    worker and are not done, at the moment of routing.
    """
    count, workers = len(requests.sent_s), len(slowdown)
    behind, made = np.full(count, UNASSIGNED, np.int64), np.zeros(count, np.int64)
    jobs = DecodeQueue(served.ready_s, requests.prompt, requests.answer, requests.reserved, behind, made)
    pool = empty_pool(slowdown, batch_s, min(limits.slots, count))
    link_s = np.zeros(workers)
    served.first_s[:] = -1.0
    for request in requests.order:
        sent_s, transfer_s = requests.sent_s[request], requests.transfer_s[request]
        if served.worker[request] == UNASSIGNED:
            for worker in range(workers):
                if is_due(pool, worker, sent_s):
                    _serve(limits, jobs, state_of(pool, worker), served, sent_s)
            served.worker[request] = least_loaded(pending_requests(pool, sent_s), request % workers)
        worker = served.worker[request]
        arrived_s = max(sent_s, link_end_s(link_s, worker, requests.begun_s[request], transfer_s))
        served.ready_s[request] = arrived_s + limits.transfer_latency_s
        pool.number[worker, LOAD] += 1
        enqueue(pool.waiting[worker], behind, request)
    for worker in range(workers):
        _serve(limits, jobs, state_of(pool, worker), served, np.inf)
    served.use[:] = pool.clock_s[:, BATCH_S:]
    served.peak_tokens[:] = pool.number[:, PEAK]


@compiled
def _serve(
    limits: DecodeWorker, jobs: DecodeQueue, state: DecodeState, served: DecodeResult, until_s: float
) -> None:
    """Run every step of one worker that starts before `until_s`."""
    number, clock_s = state.number, state.clock_s
    while clock_s[NOW] < until_s:
        _resume(limits, jobs, state)
        if clock_s[NOW] >= until_s:  # who came meanwhile is not known yet
            return
        _admit(limits, jobs, state, served.start_s)
        if number[BATCH] == 0:
            if state.waiting[HEAD] == UNASSIGNED:
                return
            clock_s[NOW] = jobs.ready_s[state.waiting[HEAD]]
            continue
        while limits.policy == MAX_UTILIZATION and _room(limits, state) < number[BATCH]:
            _pause(jobs, state)
        context_s = limits.context_token_s * number[CONTEXT]
        step_s = state.slowdown * (state.batch_s[number[BATCH]] + context_s)
        for slot in range(number[STEPPED], number[BATCH]):
            if served.first_s[state.active[slot]] < 0:
                served.first_s[state.active[slot]] = clock_s[NOW] + step_s
        _advance(limits, state, _steps(limits, jobs, state, step_s, until_s), step_s)
        _retire(jobs, state, served.done_s)


@compiled
def _room(limits: DecodeWorker, state: DecodeState) -> int:
    """Cache tokens left when every sequence wastes as much of its last block as it can."""
    slack = (limits.kv_block_tokens - 1) * state.number[BATCH]
    return int(limits.kv_tokens - state.number[CONTEXT] - slack)


@compiled
def _fits(limits: DecodeWorker, jobs: DecodeQueue, state: DecodeState, request: int) -> bool:
    """Whether a slot and the cache are free: for the whole answer, or under MAX_UTILIZATION for a step."""
    batch = state.number[BATCH]
    if batch >= len(state.active):
        return False
    if limits.policy == MAX_UTILIZATION:
        context = jobs.prompt[request] + jobs.made[request]
        return bool(_room(limits, state) - context - (limits.kv_block_tokens - 1) >= batch + 1)
    return bool(state.number[PROMISED] + jobs.reserved[request] <= limits.kv_tokens)


@compiled
def _join(jobs: DecodeQueue, state: DecodeState, request: int) -> None:
    number = state.number
    finish = number[STEP] + jobs.answer[request] - jobs.made[request]
    number[NEXT_END] = min(number[NEXT_END], finish) if number[BATCH] > 0 else finish
    state.active[number[BATCH]] = request
    state.finish[number[BATCH]] = finish
    number[CONTEXT] += jobs.prompt[request] + jobs.made[request]
    number[PROMISED] += jobs.reserved[request]
    number[BATCH] += 1


@compiled
def _resume(limits: DecodeWorker, jobs: DecodeQueue, state: DecodeState) -> None:
    """Bring paused requests back, the oldest first, at the price of computing their cache again."""
    number = state.number
    while number[PAUSED] > 0:
        request = state.paused[number[PAUSED] - 1]
        if not _fits(limits, jobs, state, request):
            return
        number[PAUSED] -= 1
        tokens = jobs.prompt[request] + jobs.made[request]
        chunks = -(-tokens // limits.max_num_tokens)
        lost_s = limits.recompute_step_s * chunks + limits.recompute_token_s * tokens
        lost_s += limits.recompute_pair_s * (tokens * (tokens / 2))
        _pass_time(limits, state, state.slowdown * lost_s, number[CONTEXT])
        _join(jobs, state, request)


@compiled
def _admit(limits: DecodeWorker, jobs: DecodeQueue, state: DecodeState, start_s: FloatArray) -> None:
    """Let arrived requests join, in order; STATIC_BATCH lets them join only an empty engine."""
    number, now_s = state.number, state.clock_s[NOW]
    if number[PAUSED] > 0 or (limits.policy == STATIC_BATCH and number[BATCH] > 0):
        return
    while state.waiting[HEAD] != UNASSIGNED:
        request = state.waiting[HEAD]
        if jobs.ready_s[request] > now_s or not _fits(limits, jobs, state, request):
            return
        start_s[request] = now_s
        _join(jobs, state, request)
        dequeue(state.waiting, jobs.behind)


@compiled
def _pause(jobs: DecodeQueue, state: DecodeState) -> None:
    number = state.number
    number[BATCH] -= 1
    number[STEPPED] = min(number[STEPPED], number[BATCH])
    request = state.active[number[BATCH]]
    jobs.made[request] = jobs.answer[request] - (state.finish[number[BATCH]] - number[STEP])
    number[CONTEXT] -= jobs.prompt[request] + jobs.made[request]
    number[PROMISED] -= jobs.reserved[request]
    state.paused[number[PAUSED]] = request
    number[PAUSED] += 1
    number[NEXT_END] = state.finish[: number[BATCH]].min()


@compiled
def _steps(limits: DecodeWorker, jobs: DecodeQueue, state: DecodeState, step_s: float, until_s: float) -> int:
    """Steps until the batch can change: an answer ends, a request that fits arrives, or the cache is full.

    Never one that starts at `until_s` or later.
    """
    number, head = state.number, state.waiting[HEAD]
    batch = number[BATCH]
    steps = number[NEXT_END] - number[STEP]
    if limits.policy == MAX_UTILIZATION:
        steps = min(steps, _room(limits, state) // batch)
    joins = number[PAUSED] == 0 and limits.policy != STATIC_BATCH and head != UNASSIGNED
    if joins and _fits(limits, jobs, state, head):
        until_s = min(until_s, jobs.ready_s[head])
    if until_s < np.inf:
        # smallest m with m x step + growth x m (m - 1) / 2 >= wait, each step longer by `growth`
        wait_s = until_s - state.clock_s[NOW]
        growth_s = state.slowdown * limits.context_token_s * batch
        linear_s = step_s - growth_s / 2
        root = 2 * wait_s / (linear_s + math.sqrt(linear_s * linear_s + 2 * growth_s * wait_s))
        steps = min(steps, max(1, math.ceil(root)))
    return int(steps)


@compiled
def _advance(limits: DecodeWorker, state: DecodeState, steps: int, step_s: float) -> None:
    number = state.number
    batch = number[BATCH]
    growth_s = state.slowdown * limits.context_token_s * batch
    mean_context = number[CONTEXT] + batch * ((steps + 1) / 2)
    _pass_time(limits, state, steps * step_s + growth_s * (steps * (steps - 1) / 2), mean_context)
    number[STEP] += steps
    number[CONTEXT] += batch * steps
    taken = number[PROMISED]
    if limits.policy == MAX_UTILIZATION:
        taken = limits.kv_tokens - _room(limits, state)
    number[PEAK] = max(number[PEAK], taken)


@compiled
def _pass_time(limits: DecodeWorker, state: DecodeState, duration_s: float, context: float) -> None:
    clock_s = state.clock_s
    counted_s = max(0.0, min(clock_s[NOW] + duration_s, limits.window_s) - clock_s[NOW])
    clock_s[BATCH_S] += counted_s * state.number[BATCH]
    clock_s[CONTEXT_S] += counted_s * context
    clock_s[NOW] += duration_s


@compiled
def _retire(jobs: DecodeQueue, state: DecodeState, done_s: FloatArray) -> None:
    """Take out answers that are done; the others keep their order, so that the last is the youngest."""
    number = state.number
    number[JUST_ENDED] = 0
    number[STEPPED] = number[BATCH]
    if number[STEP] < number[NEXT_END]:
        return
    kept, next_end = 0, np.iinfo(np.int64).max
    for slot in range(number[BATCH]):
        request, finish = state.active[slot], state.finish[slot]
        if finish > number[STEP]:
            state.active[kept], state.finish[kept] = request, finish
            next_end = min(next_end, finish)
            kept += 1
            continue
        done_s[request] = state.clock_s[NOW]
        number[CONTEXT] -= jobs.prompt[request] + jobs.answer[request]
        number[PROMISED] -= jobs.reserved[request]
    number[JUST_ENDED] = number[BATCH] - kept
    number[LOAD] -= number[JUST_ENDED]
    number[BATCH], number[STEPPED], number[NEXT_END] = kept, kept, next_end
