"""Test the frontend as a single server of streamed messages, against queues counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.sim.frontend import between_bins, frontend_delay_s, frontends_delay_s

answers = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 20), st.integers(1, 2000)), min_size=1, max_size=40
)


def test_an_idle_frontend_delays_by_one_message() -> None:
    first_s, last_s = frontend_delay_s(np.array([1.0]), np.array([11.0]), np.array([100]), 1e-3)
    assert first_s == pytest.approx([1e-3], rel=0.01)
    assert last_s == pytest.approx([1e-3], rel=0.01)


def test_steady_load_waits_like_an_m_d_1_queue() -> None:
    """800 messages/s of 1 ms wait 2 ms on average. Source: Pollaczek-Khinchine formula."""
    first_s, _ = frontend_delay_s(np.array([0.0, 50.0]), np.array([100.0, 50.0]), np.array([80_000, 1]), 1e-3)
    assert first_s[1] == pytest.approx(1e-3 + 2e-3, rel=0.05)


def test_an_overload_builds_a_backlog() -> None:
    """1,000 messages of 20 ms within 10 s leave another second of work every second."""
    _, last_s = frontend_delay_s(np.array([0.0]), np.array([10.0]), np.array([1000]), 0.02)
    assert last_s[0] == pytest.approx(10.0, rel=0.01)


def test_a_backlog_is_worked_off() -> None:
    """10 s of surplus work are gone when the third answer streams at 25 s."""
    begin_s, end_s = np.array([0.0, 15.0, 25.0]), np.array([10.0, 16.0, 26.0])
    first_s, _ = frontend_delay_s(begin_s, end_s, np.array([1000, 1, 1]), 0.02)
    assert first_s[1] == pytest.approx(5.0, rel=0.02)
    assert first_s[2] < 0.03


def test_messages_without_cost_have_no_delay() -> None:
    first_s, last_s = frontend_delay_s(np.array([1.0]), np.array([2.0]), np.array([10**9]), 0.0)
    assert first_s == last_s == 0.0


def test_several_frontends_share_the_messages() -> None:
    """What overloads one frontend by the half keeps two busy to three quarters."""
    begin_s = np.arange(0.0, 20.0, 0.1)
    streams = begin_s, begin_s + 1.0, np.full(len(begin_s), 150), 1e-3
    one_s, _ = frontends_delay_s(*streams, frontends=1)
    two_s, _ = frontends_delay_s(*streams, frontends=2)
    assert one_s == pytest.approx(frontend_delay_s(*streams)[0], abs=0)
    assert one_s.max() > 5.0
    assert two_s.max() < 0.1


@given(streams=answers, message_s=st.floats(1e-6, 0.1))
def test_messages_keep_their_order_and_fewer_wait_less(
    streams: list[tuple[float, float, int]], message_s: float
) -> None:
    begin_s, lasts_s, messages = (np.array(column) for column in zip(*streams, strict=True))
    end_s = begin_s + lasts_s
    first_s, last_s = frontend_delay_s(begin_s, end_s, messages, message_s)
    assert (first_s >= message_s).all()
    assert (end_s + last_s - begin_s - first_s >= -1e-9).all()
    fewer_s, _ = frontend_delay_s(begin_s, end_s, (messages + 1) // 2, message_s)
    assert (fewer_s <= first_s + 1e-9).all()


@given(
    values=st.lists(st.floats(0, 1e3), min_size=2, max_size=60),
    at=st.lists(st.tuples(st.floats(0, 1), st.sampled_from([-1, 0, 1])), min_size=1, max_size=60),
    width_s=st.floats(0.05, 0.4),
)
def test_values_between_bins_have_the_bits_of_bisection(
    values: list[float], at: list[tuple[float, int]], width_s: float
) -> None:
    """Moments lie anywhere, at the end of a bin, and one bit beside it."""
    waits_s, ends_s = np.array(values), np.arange(1, len(values) + 1) * width_s
    anywhere_s = np.array([share for share, _ in at]) * (ends_s[-2] * 0.999)
    directions = np.array([side for _, side in at])
    near_s = ends_s[np.searchsorted(ends_s[:-2], anywhere_s)]
    beside_s = np.where(
        directions == 0, near_s, np.nextafter(near_s, np.where(directions < 0, -np.inf, np.inf))
    )
    for moments_s in (anywhere_s, beside_s):
        expected_s = np.interp(moments_s, ends_s, waits_s)
        assert np.array_equal(between_bins(moments_s, waits_s, width_s), expected_s)
