"""Define the data of the decode loops: limits of a worker, requests, and the state of every worker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.queues import HEAD, UNASSIGNED, empty_queues

RESERVE_ANSWERS, EVICT_NEWEST, WHOLE_BATCHES = 0, 1, 2
"""Batching policies of an engine (`BatchingPolicy`), as numbers for compiled code."""

STEP, NEXT_END, CONTEXT, RESERVED, BATCH, STEPPED, PAUSED, PEAK, LOAD, JUST_ENDED, OUTSIDE = range(11)
"""Indices of a worker's counters: steps made, step after which the next answer ends, context tokens, reserved
tokens, sequences in the batch, those of them that have made a step, paused sequences, largest number of cache
tokens in use, requests routed here and not done, answers that ended with the last step, and steps outside the
table of step times."""

NOW, BATCH_INTEGRAL, CONTEXT_INTEGRAL = range(3)
"""Indices of a worker's clock: the time, and the integrals over time of batch size and of context tokens."""


class DecodeWorker(NamedTuple):
    """Describe a decode worker.

    `transfer_latency_s` passes between the end of a KV transfer and its use, and `stall_token_s` for each of
    its tokens before the next step. The recompute times are those of
    a prefill on this engine, in chunks of token_budget. Usage is counted up to `window_s`.
    """

    policy: int
    slots: int
    kv_tokens: int
    kv_block_tokens: int
    transfer_latency_s: float
    stall_token_s: float
    token_budget: int
    recompute_step_s: float
    recompute_token_s: float
    recompute_pair_s: float
    window_s: float


class GrowingStep(NamedTuple):
    """Hold the seconds of the next step, and by how much each further step is longer."""

    first_s: float
    growth_s: float


class DecodeSteps(NamedTuple):
    """Hold the seconds of decode steps, piecewise linear in the context, in k segments.

    In a segment, a step of b sequences takes batch_s[b] + token_s[b] x tokens of all contexts, both of shape
    (slots + 1, k). Segment i ends where the mean context of a sequence reaches bound_tokens[i] (k,), the
    last one never. `is_known` (slots + 1, k) is false where steps are extrapolated.
    """

    batch_s: FloatArray
    token_s: FloatArray
    bound_tokens: FloatArray
    is_known: BoolArray


def linear_steps(batch_s: FloatArray, context_token_s: float) -> DecodeSteps:
    """Return steps of batch_s[b] (slots + 1,) + context_token_s x tokens of all contexts, in one segment."""
    shape = (len(batch_s), 1)
    never = np.array([np.inf])
    return DecodeSteps(batch_s[:, None], np.full(shape, context_token_s), never, np.ones(shape, np.bool_))


class DecodeRequests(NamedTuple):
    """Hold the requests of a decode pool, arrays of shape (n,).

    `order` lists the requests as their KV caches are sent. The prefill worker sends a cache from `begun_s` to
    `sent_s`; on the decode worker's link it takes `transfer_s`, from `begun_s` on if that link is free.
    `reserved` counts the cache tokens set aside for each request.
    """

    order: IntArray
    begun_s: FloatArray
    sent_s: FloatArray
    transfer_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray


class DecodeResult(NamedTuple):
    """Receive the results of the loops; all fields but `usage` and `peak_tokens` have the shape (n,).

    `worker` is read where it is not UNASSIGNED; elsewhere the least loaded worker is written. `ready_s` is
    the arrival of the KV cache, `start_s` that of a slot, `first_s` and `done_s` those of first and last
    token. `usage` (workers, 2) are integrals over the window of batch size and cache tokens in use.
    `peak_tokens` (workers,) is the most cache ever taken, including whole blocks or reservations. `steps`
    (workers, 2) counts all steps and those outside the table of step times.
    """

    worker: IntArray
    ready_s: FloatArray
    start_s: FloatArray
    first_s: FloatArray
    done_s: FloatArray
    usage: FloatArray
    peak_tokens: IntArray
    steps: IntArray


def empty_decode_result(worker: IntArray, workers: int) -> DecodeResult:
    """Return a result to fill, for the requests that `worker` (n,) routes among `workers`."""
    ready_s, start_s, first_s, done_s = (np.zeros(len(worker)) for _ in range(4))
    usage, peak_tokens = np.zeros((workers, 2)), np.zeros(workers, np.int64)
    steps = np.zeros((workers, 2), np.int64)
    return DecodeResult(worker, ready_s, start_s, first_s, done_s, usage, peak_tokens, steps)


class DecodeQueue(NamedTuple):
    """Hold the state of each request in the loops, arrays of shape (n,).

    `follower` is the next request in the queue of its worker, `generated` the tokens generated so far.
    """

    ready_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    follower: IntArray
    generated: IntArray


class DecodeState(NamedTuple):
    """Hold the state of one worker.

    `active` lists the sequences of the batch, oldest first, `finish` the step after which each is done.
    `paused` is a stack, `waiting` (2,) a queue. `counters` and `clock_s` are indexed by this module's
    constants.
    """

    slowdown: float
    steps: DecodeSteps
    active: IntArray
    finish: IntArray
    paused: IntArray
    waiting: IntArray
    counters: IntArray
    clock_s: FloatArray


class DecodePool(NamedTuple):
    """Hold the states of all workers, one a row; `steps` are common to all."""

    slowdown: FloatArray
    steps: DecodeSteps
    active: IntArray
    finish: IntArray
    paused: IntArray
    waiting: IntArray
    counters: IntArray
    clock_s: FloatArray


@compiled
def empty_pool(slowdown: FloatArray, steps: DecodeSteps, slots: int) -> DecodePool:
    """Return idle workers, one per entry of `slowdown`."""
    workers = len(slowdown)
    return DecodePool(
        slowdown,
        steps,
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        empty_queues(workers),
        np.zeros((workers, 11), np.int64),
        np.zeros((workers, 3)),
    )


@compiled
def state_of(pool: DecodePool, worker: int) -> DecodeState:
    """Return the state of one worker, as views."""
    return DecodeState(
        pool.slowdown[worker],
        pool.steps,
        pool.active[worker],
        pool.finish[worker],
        pool.paused[worker],
        pool.waiting[worker],
        pool.counters[worker],
        pool.clock_s[worker],
    )


@compiled
def is_due(pool: DecodePool, worker: int, until_s: float) -> bool:
    """Return whether a worker has something to do before `until_s`; most have not between two requests."""
    idle = pool.counters[worker, BATCH] == 0 and pool.waiting[worker, HEAD] == UNASSIGNED
    return bool(pool.clock_s[worker, NOW] < until_s and (not idle or pool.counters[worker, PAUSED] > 0))


@compiled
def pending_requests(pool: DecodePool, now_s: float) -> IntArray:
    """Return the unfinished requests of each worker, (workers,); a step in progress ends after `now_s`."""
    load = pool.counters[:, LOAD].copy()
    for worker in range(len(load)):
        if pool.clock_s[worker, NOW] > now_s:
            load[worker] += pool.counters[worker, JUST_ENDED]
    return load
