"""Define the data of the prefill loops: limits of a worker, prompts, and the state of every worker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.queues import HEAD, UNASSIGNED, empty_queues

BATCH, FREE_BLOCKS, LOAD, JUST_ENDED, STEPS, OUTSIDE = range(6)
"""Indices of a worker's counters: prompts in the batch, free KV blocks, prompts routed here and not done,
prompts that ended with the last step, and, with a table of step times, steps made and those outside of it."""

NOW, BUSY, LINK = range(3)
"""Indices of a worker's clock: the time, the busy time inside the window, and when its link is free."""


class PrefillWorker(NamedTuple):
    """Describe a prefill worker.

    A step takes step + token x new tokens + pair x attended pairs seconds. With a table, where `table_scale`
    is not 0, it takes table_scale x its time there + step + token x new tokens. `fill_steps` are further
    pipeline stages that the last step of a prompt passes. Usage is counted up to `window_s`.
    """

    max_sequences: int
    token_budget: int
    kv_tokens: int
    kv_block_tokens: int
    chunked: bool
    equal_progress: bool
    static_batch: bool
    step_s: float
    token_s: float
    pair_s: float
    table_scale: float
    fill_steps: int
    window_s: float


class PrefillTable(NamedTuple):
    """Hold measured steps: `step_s` (n, k) of `tokens` (n,) new tokens, each attending to `attended` (k,).

    The first and the last row are extrapolated. A table without entries is never read.
    """

    tokens: FloatArray
    attended: FloatArray
    step_s: FloatArray


NO_PREFILL_TABLE = PrefillTable(np.zeros(0), np.zeros(0), np.zeros((0, 0)))


class PrefillRequests(NamedTuple):
    """Hold prompts in order of arrival, shape (n,); `transfer_s` is a KV transfer's time on a free link."""

    arrival_s: FloatArray
    tokens: IntArray
    transfer_s: FloatArray


class PrefillResult(NamedTuple):
    """Receive the results of the loops; all fields but the last two have the shape (n,).

    `worker` is read where it is not UNASSIGNED; elsewhere the least loaded worker is written. `start_s` and
    `done_s` are start and end of prefill, `sent_s` is when the KV cache has left the worker. `busy_s`
    (workers,) are seconds of the window in which each worker ran a step. `steps` (workers, 2) counts steps
    and those outside the table of step times, zeros without one.
    """

    worker: IntArray
    start_s: FloatArray
    done_s: FloatArray
    sent_s: FloatArray
    busy_s: FloatArray
    steps: IntArray


def empty_prefill_result(worker: IntArray, workers: int) -> PrefillResult:
    """Return a result to fill, for the requests that `worker` (n,) routes among `workers`."""
    start_s, done_s, sent_s = (np.zeros(len(worker)) for _ in range(3))
    return PrefillResult(worker, start_s, done_s, sent_s, np.zeros(workers), np.zeros((workers, 2), np.int64))


class PrefillQueue(NamedTuple):
    """Hold what workers share: the state of each prompt, arrays of shape (n,), and the table of step times.

    `left` counts the tokens that lack. `follower` and `sending_follower` are the next prompt in the queue for
    admission and in the queue of the link.
    """

    arrival_s: FloatArray
    tokens: IntArray
    transfer_s: FloatArray
    left: IntArray
    follower: IntArray
    sending_follower: IntArray
    table: PrefillTable


class PrefillState(NamedTuple):
    """Hold the state of one worker.

    `active` lists prompts oldest first, `chunk` their tokens in the next step. `waiting` (2,) is the queue
    for admission, `sending` (2,) that of finished prompts whose cache still leaves. `counters` and `clock_s`
    are indexed by this module's constants.
    """

    slowdown: float
    active: IntArray
    chunk: IntArray
    waiting: IntArray
    sending: IntArray
    counters: IntArray
    clock_s: FloatArray


class PrefillPoolState(NamedTuple):
    """Hold the states of all workers, one a row."""

    slowdown: FloatArray
    active: IntArray
    chunk: IntArray
    waiting: IntArray
    sending: IntArray
    counters: IntArray
    clock_s: FloatArray


@compiled
def empty_prefill_pool(slowdown: FloatArray, slots: int) -> PrefillPoolState:
    """Return idle workers, one per entry of `slowdown`."""
    workers = len(slowdown)
    return PrefillPoolState(
        slowdown,
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        empty_queues(workers),
        empty_queues(workers),
        np.zeros((workers, 6), np.int64),
        np.zeros((workers, 3)),
    )


@compiled
def prefill_state(pool: PrefillPoolState, worker: int) -> PrefillState:
    """Return the state of one worker, as views."""
    return PrefillState(
        pool.slowdown[worker],
        pool.active[worker],
        pool.chunk[worker],
        pool.waiting[worker],
        pool.sending[worker],
        pool.counters[worker],
        pool.clock_s[worker],
    )


@compiled
def has_due_step(pool: PrefillPoolState, worker: int, until_s: float) -> bool:
    """Return whether a worker has a step to start before `until_s`; most have none between arrivals."""
    idle = pool.counters[worker, BATCH] == 0 and pool.waiting[worker, HEAD] == UNASSIGNED
    return bool(pool.clock_s[worker, NOW] < until_s and not idle)


@compiled
def pending_prompts(pool: PrefillPoolState, now_s: float) -> IntArray:
    """Return the unfinished prompts of each worker, (workers,); a step in progress ends after `now_s`."""
    load = pool.counters[:, LOAD].copy()
    for worker in range(len(load)):
        if pool.clock_s[worker, NOW] > now_s:
            load[worker] += pool.counters[worker, JUST_ENDED]
    return load
