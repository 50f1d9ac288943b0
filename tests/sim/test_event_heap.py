"""Test the heap of events against a sorted list."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.event_heap import empty_heap, first_s, pop, push


@compiled
def take_out(at_s: FloatArray, taken_after: IntArray) -> list[tuple[float, int]]:
    """Push every event, pop one after each of `taken_after`, then the rest; return what was popped."""
    heap, popped = empty_heap(len(at_s)), [(0.0, 0)]
    popped.clear()
    for request in range(len(at_s)):
        push(heap, at_s[request], request)
        if taken_after[request]:
            popped.append((first_s(heap), pop(heap)))
    while first_s(heap) < np.inf:
        popped.append((first_s(heap), pop(heap)))
    return popped


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_events_come_by_time_and_then_by_request(events: list[tuple[int, bool]]) -> None:
    left: list[tuple[float, int]] = []
    expected = []
    for request, (at_s, is_taken) in enumerate(events):
        left = sorted([*left, (float(at_s), request)])
        if is_taken:
            expected.append(left.pop(0))
    at_s, taken = np.array([float(event[0]) for event in events]), np.array([int(e[1]) for e in events])
    assert take_out(at_s, taken) == expected + left
