"""Work that threads share: equal results in equal order, and an end at any moment."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.core.threads import map_ahead


@pytest.mark.slow
@given(items=st.lists(st.integers(), max_size=20), threads=st.integers(1, 5))
def test_results_are_those_of_one_thread(items: list[int], threads: int) -> None:
    assert list(map_ahead(lambda item: item * item, items, threads)) == [item * item for item in items]


@given(taken=st.integers(0, 10), threads=st.integers(1, 4))
def test_no_more_is_begun_than_is_asked_for_and_ahead(taken: int, threads: int) -> None:
    begun: list[int] = []
    results = map_ahead(begun.append, range(30), threads)
    for _ in range(taken):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= taken + threads
    assert sorted(begun) == list(range(len(begun)))


def test_items_are_computed_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=30)
    assert len(list(map_ahead(lambda _: together.wait(), range(3), 3))) == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_error_is_raised_in_its_place(threads: int) -> None:
    results = map_ahead(lambda item: 1 // item, [1, 1, 0, 1], threads)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
