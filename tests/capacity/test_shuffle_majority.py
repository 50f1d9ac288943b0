"""Test that the majority of shuffles at a series of rates is as if each were asked at every rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune.capacity.shuffle_majority import ShuffleMajority

CAPACITIES = st.lists(st.floats(1.0, 2.0), min_size=1, max_size=9)
RATES = st.lists(st.floats(0.9, 2.1), min_size=1, max_size=8)


@given(capacities=CAPACITIES, rates=RATES, threads=st.integers(1, 3))
def test_verdicts_are_those_of_all_shuffles(
    capacities: list[float], rates: list[float], threads: int
) -> None:
    majority = ShuffleMajority(
        range(len(capacities)), lambda qps, shuffle: qps <= capacities[shuffle], threads
    )
    for qps in rates:
        assert majority.holds(qps) == (2 * sum(qps <= c for c in capacities) > len(capacities))


@given(capacities=CAPACITIES, rates=RATES)
def test_no_shuffle_is_asked_what_it_has_answered(capacities: list[float], rates: list[float]) -> None:
    asked: list[tuple[float, int]] = []

    def holds(qps: float, shuffle: int) -> bool:
        held = [rate for rate, other in asked if other == shuffle and rate <= capacities[shuffle]]
        missed = [rate for rate, other in asked if other == shuffle and rate > capacities[shuffle]]
        assert not held or qps > max(held)
        assert not missed or qps < min(missed)
        asked.append((qps, shuffle))
        return qps <= capacities[shuffle]

    majority = ShuffleMajority(range(len(capacities)), holds, threads=1)
    for qps in rates:
        majority.holds(qps)
