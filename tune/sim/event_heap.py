"""Hold a heap of events in arrays: heapq grows a list, for which inlined loops would count references."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled, inlined


class EventHeap(NamedTuple):
    """Hold up to n events, each a time `at_s` (n,) and a `request` (n,); `size` (1,) is their number.

    The first event is the earliest; of several at one time it is that of the lowest request.
    """

    at_s: FloatArray
    request: IntArray
    size: IntArray


@compiled
def empty_heap(most: int) -> EventHeap:
    """Return a heap for up to `most` events."""
    return EventHeap(np.zeros(most), np.zeros(most, np.int64), np.zeros(1, np.int64))


@inlined
def first_s(heap: EventHeap) -> float:
    """Return the time of the first event, infinite where there is none."""
    return float(heap.at_s[0]) if heap.size[0] > 0 else np.inf


@inlined
def push(heap: EventHeap, at_s: float, request: int) -> None:
    """Add an event."""
    place = heap.size[0]
    heap.size[0] += 1
    while place > 0:
        above = (place - 1) // 2
        if not _is_before(at_s, request, heap.at_s[above], heap.request[above]):
            break
        heap.at_s[place], heap.request[place] = heap.at_s[above], heap.request[above]
        place = above
    heap.at_s[place], heap.request[place] = at_s, request


@inlined
def pop(heap: EventHeap) -> int:
    """Remove the first event and return its request."""
    first = heap.request[0]
    heap.size[0] -= 1
    size, place = heap.size[0], 0
    at_s, request = heap.at_s[size], heap.request[size]
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and _is_before(
            heap.at_s[below + 1], heap.request[below + 1], heap.at_s[below], heap.request[below]
        ):
            below += 1
        if not _is_before(heap.at_s[below], heap.request[below], at_s, request):
            break
        heap.at_s[place], heap.request[place] = heap.at_s[below], heap.request[below]
        place = below
    heap.at_s[place], heap.request[place] = at_s, request
    return int(first)


@inlined
def _is_before(at_s: float, request: int, other_s: float, other: int) -> bool:
    """Return whether an event comes before another."""
    return at_s < other_s or (at_s == other_s and request < other)
