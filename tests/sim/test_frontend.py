"""Test the frontend as a single server of streamed messages, against queues counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.core.arrays import FloatArray, IntArray
from tune.sim.frontend import BIN_S, frontends_delay_s

answers = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 20), st.integers(1, 2000)), min_size=1, max_size=40
)


def test_an_idle_frontend_delays_by_one_message() -> None:
    first_s, last_s = frontends_delay_s(np.array([1.0]), np.array([11.0]), np.array([100]), 1e-3, 1)
    assert first_s == pytest.approx([1e-3], rel=0.01)
    assert last_s == pytest.approx([1e-3], rel=0.01)


def test_steady_load_waits_like_an_m_d_1_queue() -> None:
    """800 messages/s of 1 ms wait 2 ms on average. Source: Pollaczek-Khinchine formula."""
    first_s, _ = frontends_delay_s(
        np.array([0.0, 50.0]), np.array([100.0, 50.0]), np.array([80_000, 1]), 1e-3, 1
    )
    assert first_s[1] == pytest.approx(1e-3 + 2e-3, rel=0.05)


def test_an_overload_builds_a_backlog() -> None:
    """1,000 messages of 20 ms within 10 s leave another second of work every second."""
    _, last_s = frontends_delay_s(np.array([0.0]), np.array([10.0]), np.array([1000]), 0.02, 1)
    assert last_s[0] == pytest.approx(10.0, rel=0.01)


def test_a_backlog_is_worked_off() -> None:
    """10 s of surplus work are gone when the third answer streams at 25 s."""
    begin_s, end_s = np.array([0.0, 15.0, 25.0]), np.array([10.0, 16.0, 26.0])
    first_s, _ = frontends_delay_s(begin_s, end_s, np.array([1000, 1, 1]), 0.02, 1)
    assert first_s[1] == pytest.approx(5.0, rel=0.02)
    assert first_s[2] < 0.03


def test_messages_without_cost_have_no_delay() -> None:
    first_s, last_s = frontends_delay_s(np.array([1.0]), np.array([2.0]), np.array([10**9]), 0.0, 1)
    assert first_s == last_s == 0.0


def test_several_frontends_share_the_messages() -> None:
    """What overloads one frontend by the half keeps two busy to three quarters."""
    begin_s = np.arange(0.0, 20.0, 0.1)
    streams = begin_s, begin_s + 1.0, np.full(len(begin_s), 150), 1e-3
    one_s, _ = frontends_delay_s(*streams, frontends=1)
    two_s, _ = frontends_delay_s(*streams, frontends=2)
    assert one_s.max() > 5.0
    assert two_s.max() < 0.1


@given(streams=answers, message_s=st.floats(1e-6, 0.1))
def test_messages_keep_their_order_and_fewer_wait_less(
    streams: list[tuple[float, float, int]], message_s: float
) -> None:
    begin_s, lasts_s, messages = (np.array(column) for column in zip(*streams, strict=True))
    end_s = begin_s + lasts_s
    first_s, last_s = frontends_delay_s(begin_s, end_s, messages, message_s, 1)
    assert (first_s >= message_s).all()
    assert (end_s + last_s - begin_s - first_s >= -1e-9).all()
    fewer_s, _ = frontends_delay_s(begin_s, end_s, (messages + 1) // 2, message_s, 1)
    assert (fewer_s <= first_s + 1e-9).all()


def array_delays_s(
    first_s: FloatArray, done_s: FloatArray, messages: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the delays of messages of 1 ms in one frontend by whole arrays, looked up by bisection."""
    begin, end = (first_s / BIN_S).astype(int), (done_s / BIN_S).astype(int)
    per_bin_s, bins = messages * 1e-3 / (end - begin + 1), int(end.max()) + 2
    work_s = np.cumsum(np.bincount(begin, per_bin_s, bins) - np.bincount(end + 1, per_bin_s, bins))
    surplus_s = np.cumsum(work_s - BIN_S)
    left_s = surplus_s - np.minimum(np.minimum.accumulate(surplus_s), 0.0)
    busy_frac = np.clip(work_s / BIN_S, 0.0, 1.0)
    steady_s = 1e-3 * busy_frac / (2 - 2 * np.minimum(busy_frac, 1 - 1e-3 / BIN_S / 2))
    wait_s, ends_s = np.maximum(left_s, np.minimum(steady_s, BIN_S)), np.arange(1, bins + 1) * BIN_S
    return np.interp(first_s, ends_s, wait_s) + 1e-3, np.interp(done_s, ends_s, wait_s) + 1e-3


@given(streams=answers, on_edges=st.booleans(), frontends=st.integers(1, 3))
def test_delays_have_the_bits_of_whole_arrays(
    streams: list[tuple[float, float, int]], on_edges: bool, frontends: int
) -> None:
    """Answers begin and end anywhere, or where two bins meet."""
    begin_s, lasts_s, messages = (np.array(column) for column in zip(*streams, strict=True))
    end_s = begin_s + lasts_s
    if on_edges:
        begin_s, end_s = (np.floor(moment_s / BIN_S) * BIN_S for moment_s in (begin_s, end_s))
    delays_s = frontends_delay_s(begin_s, end_s, messages, 1e-3, frontends)
    for own in (slice(begin, None, frontends) for begin in range(min(frontends, len(messages)))):
        expected_s = array_delays_s(begin_s[own], end_s[own], messages[own])
        assert all(map(np.array_equal, (delay_s[own] for delay_s in delays_s), expected_s))
