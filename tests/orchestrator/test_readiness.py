from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.still_clock import StillClock

from tune.orchestrator.readiness import ProgressDeadline

STATES = st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 2)), min_size=1, max_size=40)


@given(STATES)
def test_deadline_moves_while_the_state_changes(steps: list[tuple[float, int]]) -> None:
    clock = StillClock()
    deadline = ProgressDeadline(quiet_s=4.0, ready_s=50.0, clock=clock)
    last, moved_s = None, clock.now_s
    for passed_s, state in steps:
        clock.now_s += passed_s
        if state != last:
            last, moved_s = state, clock.now_s
        over = deadline.over(state)
        assert (over is None) == (clock.now_s - moved_s <= 4.0 and clock.now_s - 100.0 <= 50.0)


def test_deadline_ends_despite_endless_progress() -> None:
    clock = StillClock()
    deadline = ProgressDeadline(quiet_s=4.0, ready_s=50.0, clock=clock)
    seen = []
    for number in range(60):
        clock.now_s = 100.0 + number
        seen.append(deadline.over(number))
    assert seen[:51] == [None] * 51
    assert seen[51] == "not within 50 s (cluster.deadlines.ready_s)"
