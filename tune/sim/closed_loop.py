"""Run prefill and decode pool at once, for users who send their next query when their last answer has ended.

The workers are those of tune/sim/prefill_loop.py and tune/sim/decode_loop.py, with their steps, queues and
links. Here time couples them: of all events (a request moves on, a step begins) the earliest comes first, so
whatever a step can read has happened before it begins. A decode worker makes many steps at once, up to the
next event that can reach it.
"""

from __future__ import annotations

import numpy as np

from tune.core.jit import compiled
from tune.sim.closed_pools import (
    ARRIVES,
    LEFT,
    READ,
    ROUTED,
    SENT,
    ClosedResult,
    ClosedRun,
    ClosedState,
    new_state,
    next_end_s,
    next_read_s,
    next_step_s,
)
from tune.sim.decode_loop import begin_steps, generate
from tune.sim.decode_pool import (
    BATCH,
    BATCH_INTEGRAL,
    JUST_ENDED,
    LOAD,
    OUTSIDE,
    PEAK,
    STEP,
    DecodeState,
    pending_requests,
    state_of,
)
from tune.sim.event_heap import first_s, pop, push
from tune.sim.prefill_loop import serve_prompts
from tune.sim.prefill_pool import BATCH as PROMPTS
from tune.sim.prefill_pool import BUSY, STEPS, PrefillState, pending_prompts, prefill_state
from tune.sim.prefill_pool import JUST_ENDED as JUST_READ
from tune.sim.prefill_pool import LOAD as PROMPT_LOAD
from tune.sim.queues import UNASSIGNED, enqueue, least_loaded, link_end_s


@compiled
def serve_closed_loop(run: ClosedRun) -> None:
    """Serve the requests of users who each wait for their answer, and fill `run.result`.

    The workers of the result say which requests are routed already. Each request must fit an empty worker of
    each pool. The least loaded worker has the fewest requests that were routed to it and are not done, at the
    moment of arrival.
    """
    pools, requests, result = run.pools, run.requests, run.result
    state = new_state(pools, requests, result)
    readers, decoders = len(state.reads_s), len(state.steps_s)
    for _ in range(min(requests.users, len(requests.prompt))):
        _send_next(run, state, 0.0)
    while True:
        event_s = first_s(state.events)
        reader, decoder = int(np.argmin(state.reads_s)), int(np.argmin(state.steps_s))
        read_s, step_s = state.reads_s[reader], state.steps_s[decoder]
        if read_s < event_s and read_s <= step_s:
            _read_prompts(run, state, prefill_state(state.prefill, reader), reader)
            continue
        if step_s < event_s:
            next_s = min(event_s, read_s)
            _make_tokens(run, state, state_of(state.decode, decoder), decoder, next_s)
            continue
        if event_s == np.inf:
            break
        request = pop(state.events)
        stage = state.stage[request]
        state.stage[request] = stage + 1
        if stage == ARRIVES:
            if result.prefill.worker[request] == UNASSIGNED:
                load = pending_prompts(state.prefill, event_s)
                result.prefill.worker[request] = least_loaded(load, request % readers)
            _enter_prefill(state, request, result.prefill.worker[request], event_s)
        elif stage == READ:
            if result.decode.worker[request] == UNASSIGNED and not pools.router.by_load:
                result.decode.worker[request] = _take_turn(run, state, request)
            push(state.events, result.prefill.sent_s[request], request)
        elif stage == LEFT:
            if result.decode.worker[request] == UNASSIGNED:
                load = pending_requests(state.decode, event_s)
                result.decode.worker[request] = least_loaded(load, request % decoders)
            _enter_decode(run, state, request)
        else:
            _send_next(run, state, event_s)
    enter_closed_counts(state, result)


@compiled
def _send_next(run: ClosedRun, state: ClosedState, now_s: float) -> None:
    """Send the next request, if one is left."""
    request = state.counts[SENT]
    if request < len(run.requests.prompt):
        run.result.sent_s[request] = now_s
        push(state.events, now_s + run.requests.overhead_s, request)
        state.counts[SENT] += 1


@compiled
def _enter_prefill(state: ClosedState, request: int, worker: int, now_s: float) -> None:
    """Put a prompt into the queue of its worker."""
    state.prompts.arrival_s[request] = now_s
    state.prefill.counters[worker, PROMPT_LOAD] += 1
    enqueue(state.prefill.waiting[worker], state.prompts.follower, request)
    state.reads_s[worker] = next_read_s(state, worker)


@compiled
def _take_turn(run: ClosedRun, state: ClosedState, request: int) -> int:
    """Return the decode worker whose turn it is."""
    router, routed = run.pools.router, state.counts[ROUTED]
    state.counts[ROUTED] += 1
    if len(router.drawn) > 0:
        return int(router.drawn[routed])
    chooser = router.router[request]
    if chooser == UNASSIGNED:
        chooser = run.result.prefill.worker[request]
    turn = state.turns[chooser] + router.begin[chooser]
    state.turns[chooser] += 1
    return int(turn % len(run.pools.decode_slowdown))


@compiled
def _enter_decode(run: ClosedRun, state: ClosedState, request: int) -> None:
    """Put a request whose KV cache has left its prefill worker into the queue of its decode worker."""
    decode, left_s = run.result.decode, run.result.prefill.sent_s[request]
    worker = decode.worker[request]
    begun_s = left_s - run.requests.send_s[request]
    received_s = link_end_s(state.link_s, worker, begun_s, run.requests.receive_s[request])
    decode.ready_s[request] = max(left_s, received_s) + run.pools.decode.transfer_latency_s
    state.decode.counters[worker, LOAD] += 1
    enqueue(state.decode.waiting[worker], state.answers.follower, request)
    state.steps_s[worker] = next_step_s(state, worker)
    state.ends_s[worker] = next_end_s(run.pools, state, worker)


@compiled
def _read_prompts(run: ClosedRun, state: ClosedState, worker: PrefillState, reader: int) -> None:
    """Make the next step of a prefill worker."""
    worker.counters[JUST_READ] = 0
    until_s = np.nextafter(state.reads_s[reader], np.inf)
    serve_prompts(run.pools.prefill, state.prompts, worker, run.result.prefill, until_s)
    batch = worker.counters[PROMPTS]
    for slot in range(batch, batch + worker.counters[JUST_READ]):
        request = worker.active[slot]
        push(state.events, run.result.prefill.done_s[request], request)
    state.reads_s[reader] = next_read_s(state, reader)


@compiled
def _make_tokens(
    run: ClosedRun, state: ClosedState, worker: DecodeState, decoder: int, next_s: float
) -> None:
    """Make the next steps of a decode worker, until an answer ends or anything else may reach it.

    `next_s` is when the next request moves on or is read.
    """
    pools, decode = run.pools, run.result.decode
    state.ends_s[decoder] = np.inf
    until_s = max(
        min(next_s, state.ends_s[np.argmin(state.ends_s)]), np.nextafter(state.steps_s[decoder], np.inf)
    )
    if begin_steps(pools.decode, state.answers, worker, decode, until_s):
        generate(pools.decode, state.answers, worker, decode, until_s)
        batch = worker.counters[BATCH]
        for slot in range(batch, batch + worker.counters[JUST_ENDED]):
            request = worker.active[slot]
            push(state.events, decode.done_s[request] + run.requests.passed_on_s[request], request)
    state.steps_s[decoder] = next_step_s(state, decoder)
    state.ends_s[decoder] = next_end_s(pools, state, decoder)


@compiled
def enter_closed_counts(state: ClosedState, result: ClosedResult) -> None:
    """Enter what the workers counted."""
    result.prefill.busy_s[:] = state.prefill.clock_s[:, BUSY]
    result.prefill.steps[:] = state.prefill.counters[:, STEPS:]
    result.decode.usage[:] = state.decode.clock_s[:, BATCH_INTEGRAL:]
    result.decode.peak_tokens[:] = state.decode.counters[:, PEAK]
    result.decode.steps[:, 0] = state.decode.counters[:, STEP]
    result.decode.steps[:, 1] = state.decode.counters[:, OUTSIDE]
