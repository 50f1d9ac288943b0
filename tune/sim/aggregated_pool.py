"""Define the data of the loops of aggregated workers: each is a prefill and a decode worker at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.decode_pool import (
    DecodePool,
    DecodeQueue,
    DecodeResult,
    DecodeState,
    DecodeSteps,
    DecodeWorker,
    empty_decode_result,
    empty_pool,
    is_due,
    pending_requests,
    state_of,
)
from tune.sim.prefill_pool import (
    PrefillPoolState,
    PrefillQueue,
    PrefillState,
    PrefillTable,
    PrefillWorker,
    empty_prefill_pool,
    prefill_state,
)

PROMPTS, HELD = range(2)
"""Indices of the counters of a worker's prompts, the first two of those of a prefill worker: prompts that are
read, and the tokens of cache that they take."""


class AggregatedWorker(NamedTuple):
    """Describe an aggregated worker: how it reads prompts, and how it continues answers.

    A step reads at most `prompts.token_budget` tokens less one for each answer that it continues. Slots and
    cache are those of `answers`.
    """

    prompts: PrefillWorker
    answers: DecodeWorker


class AggregatedSteps(NamedTuple):
    """Hold the step times of answers alone, and the table of steps with prompts, read where it is scaled."""

    answers: DecodeSteps
    prompts: PrefillTable


class AggregatedRequests(NamedTuple):
    """Hold the requests in order of arrival, arrays of shape (n,).

    `reserved` counts the cache tokens set aside for each under RESERVE_ANSWERS.
    """

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray


class AggregatedResult(NamedTuple):
    """Receive the results of the loops.

    In `answers`, `start_s` is the first step that reads a request's prompt, `first_s` the end of the last
    one, and `ready_s` the arrival. `busy_s` (workers,) are seconds of the window in which each worker read
    prompts. `steps` (workers, 2) counts steps with prompts and those outside the table of step times, zeros
    without one.
    """

    answers: DecodeResult
    busy_s: FloatArray
    steps: IntArray


class AggregatedQueue(NamedTuple):
    """Hold the state of each request: as a prompt, and as an answer."""

    prompts: PrefillQueue
    answers: DecodeQueue


class AggregatedState(NamedTuple):
    """Hold the state of one worker: its prompts, and its answers with the queue of both.

    Its time is that of the answers.
    """

    prompts: PrefillState
    answers: DecodeState


class AggregatedPool(NamedTuple):
    """Hold the states of all workers."""

    prompts: PrefillPoolState
    answers: DecodePool


@compiled
def empty_aggregated_pool(slowdown: FloatArray, steps: DecodeSteps, slots: int) -> AggregatedPool:
    """Return idle workers, one per entry of `slowdown`."""
    return AggregatedPool(empty_prefill_pool(slowdown, slots), empty_pool(slowdown, steps, slots))


@compiled
def aggregated_state(pool: AggregatedPool, worker: int) -> AggregatedState:
    """Return the state of one worker, as views."""
    return AggregatedState(prefill_state(pool.prompts, worker), state_of(pool.answers, worker))


@compiled
def has_due_work(pool: AggregatedPool, worker: int, until_s: float) -> bool:
    """Return whether a worker has something to do before `until_s`."""
    reads = pool.prompts.counters[worker, PROMPTS] > 0 and pool.answers.clock_s[worker, 0] < until_s
    return bool(reads or is_due(pool.answers, worker, until_s))


@compiled
def unfinished_requests(pool: AggregatedPool, now_s: float) -> IntArray:
    """Return the unfinished requests of each worker, (workers,)."""
    return pending_requests(pool.answers, now_s)


def empty_aggregated_result(worker: IntArray, workers: int) -> AggregatedResult:
    """Return a result to fill, for the requests that `worker` (n,) routes among `workers`."""
    answers = empty_decode_result(worker, workers)
    return AggregatedResult(answers, np.zeros(workers), np.zeros((workers, 2), np.int64))
