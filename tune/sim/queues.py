"""Hold the queues of workers as linked lists, so that a pool can be routed while it serves."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled

UNASSIGNED = -1
"""Stands for no request in a queue, and for no worker of a request."""

HEAD, TAIL = range(2)
"""Columns of `empty_queues`: first and last request of a queue."""


@compiled
def empty_queues(workers: int) -> IntArray:
    """Return one empty queue per worker, shape (workers, 2): its HEAD and TAIL."""
    return np.full((workers, 2), UNASSIGNED, np.int64)


@compiled
def enqueue(ends: IntArray, follower: IntArray, request: int) -> None:
    """Append a request to the queue `ends` (2,); `follower` (n,) is the next request after each one."""
    if ends[HEAD] == UNASSIGNED:
        ends[HEAD] = request
    else:
        follower[ends[TAIL]] = request
    ends[TAIL] = request


@compiled
def dequeue(ends: IntArray, follower: IntArray) -> None:
    """Remove the first request of a queue that is not empty."""
    ends[HEAD] = follower[ends[HEAD]]


@compiled
def least_loaded(load: IntArray, first: int) -> int:
    """Return the worker with the fewest requests; a tie goes to the next one from `first` on."""
    best = first
    for step in range(1, len(load)):
        worker = (first + step) % len(load)
        if load[worker] < load[best]:
            best = worker
    return best


@compiled
def link_end_s(free_s: FloatArray, link: int, ready_s: float, duration_s: float) -> float:
    """Occupy a link first come, first served, and return when the transfer ends.

    Parameters
    ----------
    free_s
        When each link is free, seconds, shape (links,); updated.
    link
        Index of the link.
    ready_s
        When the transfer may begin, seconds.
    duration_s
        How long it occupies the link, seconds.

    Returns
    -------
    float
        End of the transfer, seconds.
    """
    free_s[link] = max(free_s[link], ready_s) + duration_s
    return float(free_s[link])
