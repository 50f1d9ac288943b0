"""Who waits for which worker: linked lists, so that a pool can be routed while it serves."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled

UNASSIGNED = -1

HEAD, TAIL = range(2)


@compiled
def empty_queues(workers: int) -> IntArray:
    """First and last of nobody for each worker, shape (workers, 2): HEAD and TAIL."""
    return np.full((workers, 2), UNASSIGNED, np.int64)


@compiled
def enqueue(ends: IntArray, behind: IntArray, request: int) -> None:
    """Put a request last in the queue of `ends` (2,); `behind` (n,) says who follows whom."""
    if ends[HEAD] == UNASSIGNED:
        ends[HEAD] = request
    else:
        behind[ends[TAIL]] = request
    ends[TAIL] = request


@compiled
def dequeue(ends: IntArray, behind: IntArray) -> None:
    """Take out the first request of a queue that has one."""
    ends[HEAD] = behind[ends[HEAD]]


@compiled
def least_loaded(load: IntArray, first: int) -> int:
    """The worker with the fewest requests; of equals the next one from `first` on."""
    best = first
    for step in range(1, len(load)):
        worker = (first + step) % len(load)
        if load[worker] < load[best]:
            best = worker
    return best


@compiled
def link_end_s(free_s: FloatArray, end: int, ready_s: float, duration_s: float) -> float:
    """When a transfer is over that enters link `end` at `ready_s` and moves behind those before it."""
    free_s[end] = max(free_s[end], ready_s) + duration_s
    return float(free_s[end])
