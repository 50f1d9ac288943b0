"""Test that more load, fewer workers and tighter limits never help, and what happens past capacity."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.sim_trials import make_trial, short_trial, tpot_s, ttft_s

from tune.analysis.measure import completion_qps
from tune.core.arrays import FloatArray
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate_serving

SEEDS = range(4)
TOLERANCE = 0.02
"""Relative tolerance of a mean over four shuffles of 2,000 requests."""

ANOMALY_TOLERANCE = 0.1
"""Fraction by which one more prefill worker may raise the mean TTFT: it changes which decode worker takes
which prompt. In rare cases near the capacity of few decode workers the mean rises: by 3.0 % from 13P3D to
14P3D and by 5.4 % from 15P3D to 16P3D, both at 14.0 QPS. In 242 random cases beside these it never rose."""

LATE_TOLERANCE = 0.2
"""Relative tolerance of a share of late requests. The decode worker of a prompt changes with the number of
prefill workers, which changes that share if decode is the bottleneck."""


def completed_qps(log: RequestLog) -> float:
    good = answered(log)
    qps = completion_qps(log, latencies(log, good), good)
    assert qps is not None
    return qps


@pytest.mark.slow
@pytest.mark.parametrize("split", [(14, 4), (15, 3), (9, 9)])
def test_past_capacity_the_queue_grows_and_throughput_stays(
    split: tuple[int, int],
) -> None:
    """Prefill is the bottleneck at 9P9D, decode at 15P3D."""
    workers = (f"split.prefill_workers={split[0]}", f"split.decode_workers={split[1]}")
    done_qps = []
    for rate in (21, 26, 31.5):
        log = simulate_serving(*make_trial(*workers, f"load.target_qps={rate}"))
        tenths_s = [part.mean() for part in np.array_split(ttft_s(log), 10)]
        assert (np.diff(tenths_s) > 0).all()
        assert tenths_s[-1] > 60
        done_qps.append(completed_qps(log))
    assert max(done_qps) < 20
    assert done_qps == pytest.approx([float(np.mean(done_qps))] * 3, rel=0.02)


@lru_cache(maxsize=512)
def latencies_s(prefill: int, decode: int, rate: float) -> tuple[FloatArray, FloatArray]:
    """Return TTFT and TPOT of all requests over four shuffles, seconds."""
    overrides = (
        "load.min_queries=2000",
        f"split.prefill_workers={prefill}",
        f"split.decode_workers={decode}",
        f"load.target_qps={rate}",
    )
    logs = [simulate_serving(*short_trial(*overrides, f"load.shuffle_seed={seed}")) for seed in SEEDS]
    return np.concatenate([ttft_s(log) for log in logs]), np.concatenate([tpot_s(log) for log in logs])


splits = st.tuples(st.integers(8, 15), st.integers(3, 6))
rates = st.floats(6, 20).map(lambda rate: round(rate, 1))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(split=splits, rate=rates, more=st.integers(1, 4))
@example(split=(13, 3), rate=14.0, more=1)
@example(split=(15, 3), rate=14.0, more=1)
def test_more_workers_never_make_their_phase_slower(split: tuple[int, int], rate: float, more: int) -> None:
    prefill, decode = split
    fewer_s, more_s = latencies_s(prefill, decode, rate), latencies_s(prefill + more, decode, rate)
    assert more_s[0].mean() <= fewer_s[0].mean() * (1 + ANOMALY_TOLERANCE)
    decode_s = latencies_s(prefill, decode + more, rate)
    assert decode_s[1].mean() <= fewer_s[1].mean() * (1 + TOLERANCE)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(split=splits, rate=rates, slower=st.floats(0.2, 4))
def test_a_lower_rate_never_makes_a_request_wait_longer(
    split: tuple[int, int], rate: float, slower: float
) -> None:
    ttft, tpot = latencies_s(*split, rate)
    less_ttft, less_tpot = latencies_s(*split, round(rate - slower, 1))
    assert less_ttft.mean() <= ttft.mean() * (1 + TOLERANCE)
    assert less_tpot.mean() <= tpot.mean() * (1 + TOLERANCE)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(split=splits, rate=rates, budget_s=st.floats(0.5, 10), longer_s=st.floats(0, 10))
def test_a_longer_budget_never_makes_more_requests_late(
    split: tuple[int, int], rate: float, budget_s: float, longer_s: float
) -> None:
    ttft, _ = latencies_s(*split, rate)
    assert (ttft > budget_s + longer_s).mean() <= (ttft > budget_s).mean()
    fewer_late = (latencies_s(split[0] + 1, split[1], rate)[0] > budget_s).mean()
    assert fewer_late <= (ttft > budget_s).mean() * (1 + LATE_TOLERANCE) + TOLERANCE
