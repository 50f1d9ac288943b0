"""Where curves of prefill pools and what links add meet the TTFT limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.surrogate.kv_transfer import LINK_UTILISATION
from tune.surrogate.prefill_capacity import PoolPairs, PrefillParameters, PrefillPools, prefill_capacity_qps
from tune.surrogate.prefill_latency import UTILISATION

SATURATED_QPS = 20.0
CURVE_S = 0.2 / (1.1 - UTILISATION)
WAITS = 0.25 * (1 + LINK_UTILISATION / (1.05 - LINK_UTILISATION))


def qps(
    left_s: float = 2.0,
    *,
    scale: float = 1.0,
    link_s: float = 0.0,
    up_to_qps: tuple[float, ...] = (np.inf,),
    longer_run: float = 1.0,
    links: int = 16,
) -> float:
    """Of one pool on one rack, whose curves of later runs are `longer_run` times as high."""
    curve_s = np.stack([CURVE_S * longer_run**run for run in range(len(up_to_qps))])[None, :, None]
    one = np.array([0])
    found = prefill_capacity_qps(
        PrefillPools(UTILISATION, curve_s, np.array([SATURATED_QPS]), np.array(up_to_qps)),
        PoolPairs(one, np.array([links]), np.tile(np.log(WAITS), (1, 1, len(UTILISATION), 1))),
        PrefillParameters(one, one, np.array([left_s]), np.array([link_s]), np.array([[scale]])),
    )
    return float(found[0, 0])


@given(at=st.integers(1, len(UTILISATION) - 1), scale=st.floats(0.5, 2.0))
def test_a_limit_on_a_point_of_the_curve_is_met_at_its_utilisation(at: int, scale: float) -> None:
    found = qps(left_s=scale * CURVE_S[at] * (1 + 1e-9), scale=scale)
    assert found == pytest.approx(UTILISATION[at] * SATURATED_QPS / scale, rel=1e-6)


@given(left_s=st.floats(0.3, 5.0), less=st.floats(0.5, 1.0), link_s=st.floats(0.0, 1.0))
def test_less_time_slower_steps_and_slower_links_never_hold_more(
    left_s: float, less: float, link_s: float
) -> None:
    usual = qps(left_s, link_s=link_s)
    assert qps(left_s * less, link_s=link_s) <= usual * (1 + 1e-9)
    assert qps(left_s, scale=1 / less) <= qps(left_s) * (1 + 1e-9)
    assert qps(left_s, scale=1 / less, link_s=link_s) <= usual * 1.02, "lines between points of a sum"
    assert qps(left_s, link_s=link_s / less) <= usual * 1.02
    assert qps(left_s, link_s=link_s, links=12) <= usual * 1.02


@given(left_s=st.floats(0.5, 5.0), link_s=st.floats(0.1, 2.0))
def test_the_rate_that_is_found_takes_what_the_limit_leaves(left_s: float, link_s: float) -> None:
    found = qps(left_s, link_s=link_s)
    load, busy = found / SATURATED_QPS, found * link_s / 16
    if not UTILISATION[0] < load < UTILISATION[-1] or busy > LINK_UTILISATION[-2]:
        return
    curve_s = np.exp(np.interp(np.log(load), np.log(UTILISATION), np.log(CURVE_S)))
    waited_s = link_s * np.exp(np.interp(busy, LINK_UTILISATION, np.log(WAITS)))
    assert curve_s + waited_s == pytest.approx(left_s, rel=0.03)


def test_no_rate_makes_links_busier_than_all_the_time() -> None:
    assert qps(left_s=100.0, link_s=10.0) == pytest.approx(16 / 10.0, rel=0.05)


def test_a_limit_below_the_curve_holds_nothing_and_one_above_it_the_highest_utilisation() -> None:
    assert qps(left_s=CURVE_S[0] * 0.99) == 0
    assert qps(left_s=-1.0) == 0
    assert qps(left_s=1000.0) == SATURATED_QPS * UTILISATION[-1]


def test_beyond_the_rate_of_the_first_run_the_longer_one_counts_but_no_lower_rate() -> None:
    once = qps()
    assert qps(up_to_qps=(once + 1, np.inf), longer_run=1.5) == once
    between = qps(up_to_qps=(once - 1, np.inf), longer_run=1.01)
    assert once - 1 < between < once
    assert qps(up_to_qps=(once - 1, np.inf), longer_run=3.0) == once - 1
