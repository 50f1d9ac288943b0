"""What the decode loops work on: the limits of a worker, its requests, and the state of every worker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.queues import HEAD, UNASSIGNED, empty_queues

GUARANTEED_NO_EVICT, MAX_UTILIZATION, STATIC_BATCH = 0, 1, 2

STEP, NEXT_END, CONTEXT, PROMISED, BATCH, STEPPED, PAUSED, PEAK, LOAD, JUST_ENDED = range(10)
NOW, BATCH_S, CONTEXT_S = range(3)


class DecodeWorker(NamedTuple):
    """What each worker may do. A step takes batch_s[batch] + context_token x total context seconds.

    `transfer_latency_s` passes between the end of a KV transfer and its use. The recompute figures are those
    of a prefill on this engine, in chunks of max_num_tokens. `window_s`: use is counted up to here.
    """

    policy: int
    slots: int
    kv_tokens: int
    kv_block_tokens: int
    transfer_latency_s: float
    context_token_s: float
    max_num_tokens: int
    recompute_step_s: float
    recompute_token_s: float
    recompute_pair_s: float
    window_s: float


class DecodeRequests(NamedTuple):
    """Shape (n,). `order`: requests as their KV caches are sent; `reserved`: cache tokens promised to each.

    The prefill worker sends a cache from `begun_s` to `sent_s`; it takes `transfer_s` to pass the decode
    worker's link as well, at the same time where that is free.
    """

    order: IntArray
    begun_s: FloatArray
    sent_s: FloatArray
    transfer_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray


class DecodeResult(NamedTuple):
    """Written by the loops: arrival of the cache, slot, first and last token of each request (n,).

    `worker` (n,) is read where NOBODY does not stand; there the least loaded worker is chosen. `use`
    (workers, 2): integrals over the window of the batch size and of the cache tokens in use. `peak_tokens`
    (workers,): the most cache ever taken, whole blocks or promises included.
    """

    worker: IntArray
    ready_s: FloatArray
    start_s: FloatArray
    first_s: FloatArray
    done_s: FloatArray
    use: FloatArray
    peak_tokens: IntArray


class DecodeQueue(NamedTuple):
    """What the loops know of each request (n,): who is `behind` it in the queue, tokens `made` so far."""

    ready_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    behind: IntArray
    made: IntArray


class DecodeState(NamedTuple):
    """One worker: `active` holds requests oldest first, `finish` the step after which each is done.

    `paused` is a stack, `waiting` (2,) the ends of a queue; `number` and `clock_s` hold the counters, times
    and integrals named above.
    """

    slowdown: float
    batch_s: FloatArray
    active: IntArray
    finish: IntArray
    paused: IntArray
    waiting: IntArray
    number: IntArray
    clock_s: FloatArray


class DecodePool(NamedTuple):
    """The states of all workers, one a row; `batch_s` (slots + 1,) is the same for all."""

    slowdown: FloatArray
    batch_s: FloatArray
    active: IntArray
    finish: IntArray
    paused: IntArray
    waiting: IntArray
    number: IntArray
    clock_s: FloatArray


@compiled
def empty_pool(slowdown: FloatArray, batch_s: FloatArray, slots: int) -> DecodePool:
    workers = len(slowdown)
    return DecodePool(
        slowdown,
        batch_s,
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        empty_queues(workers),
        np.zeros((workers, 10), np.int64),
        np.zeros((workers, 3)),
    )


@compiled
def state_of(pool: DecodePool, worker: int) -> DecodeState:
    return DecodeState(
        pool.slowdown[worker],
        pool.batch_s,
        pool.active[worker],
        pool.finish[worker],
        pool.paused[worker],
        pool.waiting[worker],
        pool.number[worker],
        pool.clock_s[worker],
    )


@compiled
def is_due(pool: DecodePool, worker: int, until_s: float) -> bool:
    """Whether a worker has something to do before `until_s`: from one request to the next most have not."""
    idle = pool.number[worker, BATCH] == 0 and pool.waiting[worker, HEAD] == UNASSIGNED
    return bool(pool.clock_s[worker, NOW] < until_s and (not idle or pool.number[worker, PAUSED] > 0))


@compiled
def pending_requests(pool: DecodePool, now_s: float) -> IntArray:
    """Requests that each worker has yet to finish; steps under way end only after `now_s`."""
    load = pool.number[:, LOAD].copy()
    for worker in range(len(load)):
        if pool.clock_s[worker, NOW] > now_s:
            load[worker] += pool.number[worker, JUST_ENDED]
    return load
