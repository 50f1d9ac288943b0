"""Test where prefill latency and transfer delays together reach the TTFT limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.surrogate.kv_transfer import LINK_UTILISATION
from tune.surrogate.prefill_capacity import PoolPairs, PrefillParameters, PrefillPools, prefill_capacity_qps
from tune.surrogate.prefill_latency import UTILISATION

SATURATED_QPS = 20.0
LATENCY_S = 0.2 / (1.1 - UTILISATION)
DELAYS = 0.25 * (1 + LINK_UTILISATION / (1.05 - LINK_UTILISATION))


def qps(
    budget_s: float = 2.0,
    *,
    scale: float = 1.0,
    transfer_s: float = 0.0,
    max_qps: tuple[float, ...] = (np.inf,),
    run_factor: float = 1.0,
    links: int = 16,
) -> float:
    """Return the capacity of one pool; each further run has `run_factor` times the latency."""
    latency_s = np.stack([LATENCY_S * run_factor**run for run in range(len(max_qps))])[None, :, None]
    first = np.array([0])
    capacity_qps = prefill_capacity_qps(
        PrefillPools(UTILISATION, latency_s, np.array([SATURATED_QPS]), np.array(max_qps)),
        PoolPairs(first, np.array([links]), np.tile(np.log(DELAYS), (1, 1, len(UTILISATION), 1))),
        PrefillParameters(first, first, np.array([budget_s]), np.array([transfer_s]), np.array([[scale]])),
    )
    return float(capacity_qps[0, 0])


@pytest.mark.slow
@given(point=st.integers(1, len(UTILISATION) - 1), scale=st.floats(0.5, 2.0))
def test_a_budget_on_a_point_of_the_curve_gives_its_utilisation(point: int, scale: float) -> None:
    capacity_qps = qps(budget_s=scale * LATENCY_S[point] * (1 + 1e-9), scale=scale)
    assert capacity_qps == pytest.approx(UTILISATION[point] * SATURATED_QPS / scale, rel=1e-6)


@given(budget_s=st.floats(0.3, 5.0), factor=st.floats(0.5, 1.0), transfer_s=st.floats(0.0, 1.0))
def test_less_time_slower_steps_and_slower_links_never_raise_capacity(
    budget_s: float, factor: float, transfer_s: float
) -> None:
    base = qps(budget_s, transfer_s=transfer_s)
    assert qps(budget_s * factor, transfer_s=transfer_s) <= base * (1 + 1e-9)
    assert qps(budget_s, scale=1 / factor) <= qps(budget_s) * (1 + 1e-9)
    assert qps(budget_s, scale=1 / factor, transfer_s=transfer_s) <= base * 1.02, "the sum is interpolated"
    assert qps(budget_s, transfer_s=transfer_s / factor) <= base * 1.02
    assert qps(budget_s, transfer_s=transfer_s, links=12) <= base * 1.02


@given(budget_s=st.floats(0.5, 5.0), transfer_s=st.floats(0.1, 2.0))
def test_latency_at_capacity_equals_the_budget(budget_s: float, transfer_s: float) -> None:
    capacity_qps = qps(budget_s, transfer_s=transfer_s)
    load, busy = capacity_qps / SATURATED_QPS, capacity_qps * transfer_s / 16
    if not UTILISATION[0] < load < UTILISATION[-1] or busy > LINK_UTILISATION[-2]:
        return
    prefill_s = np.exp(np.interp(np.log(load), np.log(UTILISATION), np.log(LATENCY_S)))
    delay_s = transfer_s * np.exp(np.interp(busy, LINK_UTILISATION, np.log(DELAYS)))
    assert prefill_s + delay_s == pytest.approx(budget_s, rel=0.03)


def test_links_are_never_busier_than_all_the_time() -> None:
    assert qps(budget_s=100.0, transfer_s=10.0) == pytest.approx(16 / 10.0, rel=0.05)


def test_a_budget_outside_the_curve_gives_zero_or_the_highest_utilisation() -> None:
    assert qps(budget_s=LATENCY_S[0] * 0.99) == 0
    assert qps(budget_s=-1.0) == 0
    assert qps(budget_s=1000.0) == SATURATED_QPS * UTILISATION[-1]


def test_beyond_the_rate_of_the_first_run_the_longer_run_counts() -> None:
    first_qps = qps()
    assert qps(max_qps=(first_qps + 1, np.inf), run_factor=1.5) == first_qps
    between = qps(max_qps=(first_qps - 1, np.inf), run_factor=1.01)
    assert first_qps - 1 < between < first_qps
    assert qps(max_qps=(first_qps - 1, np.inf), run_factor=3.0) == first_qps - 1
