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
    ClosedRun,
    ClosedState,
    new_state,
    next_end_s,
    next_read_s,
    next_step_s,
)
from tune.sim.decode_pool import BATCH, JUST_ENDED
from tune.sim.event_heap import first_s, pop, push
from tune.sim.prefill_pool import BATCH as PROMPTS
from tune.sim.prefill_pool import JUST_ENDED as JUST_READ
from tune.sim.queues import UNASSIGNED
from tune.sim.ranks.ranked_decode import (
    enter_ranked_counts,
    fill_batches,
    generate_on_ranks,
    least_loaded_worker,
    receive_cache,
)
from tune.sim.ranks.ranked_prefill import (
    enter_read_counts,
    least_loaded_reader,
    read_on_ranks,
    receive_prompt,
)


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
            _read_prompts(state, reader)
            continue
        if step_s < event_s:
            _make_tokens(run, state, decoder, min(event_s, read_s))
            continue
        if event_s == np.inf:
            break
        request = pop(state.events)
        stage = state.stage[request]
        state.stage[request] = stage + 1
        if stage == ARRIVES:
            if result.prefill.worker[request] == UNASSIGNED:
                chosen = least_loaded_reader(state.prefill, event_s, request % readers)
                result.prefill.worker[request] = chosen
            _enter_prefill(state, request, event_s)
        elif stage == READ:
            if result.decode.worker[request] == UNASSIGNED and not pools.router.by_load:
                result.decode.worker[request] = _take_turn(run, state, request)
            push(state.events, result.prefill.sent_s[request], request)
        elif stage == LEFT:
            if result.decode.worker[request] == UNASSIGNED:
                chosen = least_loaded_worker(state.decode, event_s, request % decoders)
                result.decode.worker[request] = chosen
            _enter_decode(run, state, request, event_s)
        else:
            _send_next(run, state, event_s)
    enter_read_counts(state.prefill)
    enter_ranked_counts(state.decode)


@compiled
def _send_next(run: ClosedRun, state: ClosedState, now_s: float) -> None:
    """Send the next request, if one is left."""
    request = state.counts[SENT]
    if request < len(run.requests.prompt):
        run.result.sent_s[request] = now_s
        push(state.events, now_s + run.requests.overhead_s, request)
        state.counts[SENT] += 1


@compiled
def _enter_prefill(state: ClosedState, request: int, now_s: float) -> None:
    """Put a prompt into the queue of its worker."""
    worker = state.prefill.result.worker[request]
    state.prefill.queue.arrival_s[request] = now_s
    receive_prompt(state.prefill, request, now_s)
    state.reads_s[worker] = next_read_s(state.prefill, worker)


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
def _enter_decode(run: ClosedRun, state: ClosedState, request: int, left_s: float) -> None:
    """Put a request whose KV cache has left its prefill worker into the queue of its decode worker."""
    worker, send_s = run.result.decode.worker[request], run.requests.send_s[request]
    receive_cache(state.decode, request, left_s, (left_s - send_s, run.requests.receive_s[request]))
    state.steps_s[worker] = next_step_s(state.decode, worker)
    state.ends_s[worker] = next_end_s(state.decode, worker, run.pools.shortest_s)


@compiled
def _read_prompts(state: ClosedState, reader: int) -> None:
    """Make the next step of a prefill worker."""
    pool = state.prefill
    rows = range(reader * pool.ranks, (reader + 1) * pool.ranks)
    for row in rows:
        pool.state.counters[row, JUST_READ] = 0
    read_on_ranks(pool, reader, np.nextafter(state.reads_s[reader], np.inf))
    for row in rows:
        batch = pool.state.counters[row, PROMPTS]
        for slot in range(batch, batch + pool.state.counters[row, JUST_READ]):
            request = pool.state.active[row, slot]
            push(state.events, pool.result.done_s[request], request)
    state.reads_s[reader] = next_read_s(pool, reader)


@compiled
def _make_tokens(run: ClosedRun, state: ClosedState, decoder: int, next_s: float) -> None:
    """Make the next steps of a decode worker, until an answer ends or anything else may reach it.

    `next_s` is when the next request moves on or is read.
    """
    pool = state.decode
    state.ends_s[decoder] = np.inf
    until_s = max(
        min(next_s, state.ends_s[np.argmin(state.ends_s)]), np.nextafter(state.steps_s[decoder], np.inf)
    )
    if fill_batches(pool, decoder, until_s):
        generate_on_ranks(pool, decoder, until_s)
        for row in range(decoder * pool.ranks, (decoder + 1) * pool.ranks):
            batch = pool.state.counters[row, BATCH]
            for slot in range(batch, batch + pool.state.counters[row, JUST_ENDED]):
                request = pool.state.active[row, slot]
                push(state.events, pool.result.done_s[request] + run.requests.passed_on_s[request], request)
    state.steps_s[decoder] = next_step_s(pool, decoder)
    state.ends_s[decoder] = next_end_s(pool, decoder, run.pools.shortest_s)
