"""Test what the limits of an SLO demand of each pool."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import IntArray
from tune.core.binomial_test import max_late
from tune.spec.load import Slo
from tune.surrogate.pool_limits import FirstTokenLimit, PoolLimits

EQUAL_ANSWERS = np.full(2000, 101)
ANSWERS = np.random.default_rng(0).integers(2, 400, 2000)
TTFT_S = np.random.default_rng(1).exponential(1.0, 2000)


def limits(answer: IntArray = EQUAL_ANSWERS, **limit_s: float) -> PoolLimits:
    """Return what limits in seconds demand for `answer`."""
    return PoolLimits.from_slo(Slo(**{"ttft_p99_s": None, "tpot_p99_s": None, **limit_s}), answer)


def test_limits_on_ttft_and_tpot_are_one_pools_each() -> None:
    found = limits(ttft_p99_s=4.5, ttft_mean_s=2.0, tpot_p99_s=0.08, tpot_p50_s=0.05)
    assert found.choices() == ((0.05, (4.5, 2.0)),)
    assert found.curves == found.first_token


def test_without_limits_one_curve_is_simulated_and_nothing_is_demanded() -> None:
    assert limits().choices() == ((np.inf, ()),)
    assert [limit.share for limit in limits().curves] == [0.99]


def test_steps_and_first_tokens_share_a_limit_on_the_latency() -> None:
    choices = limits(latency_p90_s=10.0).choices()
    assert len(choices) > 4
    for step_s, (first_token_s,) in choices:
        assert 100 * step_s + first_token_s == pytest.approx(10.0)
        assert first_token_s > 0
    assert [step_s for step_s, _ in choices] == sorted(step_s for step_s, _ in choices)


def test_no_limit_is_exceeded_where_several_limit_the_latency() -> None:
    found = limits(ANSWERS, latency_mean_s=8.0, latency_p90_s=12.0, tpot_p99_s=0.02, ttft_p50_s=1.5)
    for step_s, left_s in found.choices():
        assert step_s <= 0.02
        for limit, first_token_s in zip(found.first_token, left_s, strict=True):
            assert first_token_s > 0
            assert first_token_s + limit.step_tokens * step_s == pytest.approx(limit.limit_s)


def test_a_quantile_demands_what_its_verdict_does() -> None:
    """A verdict on 2,000 requests allows fewer late ones than the quantile alone."""
    frac = 1 - max_late(2000, 0.9) / 2000
    assert frac > 0.9
    assert FirstTokenLimit(0.9, 2.0).statistic_s(TTFT_S, ANSWERS) == np.quantile(TTFT_S, frac)
    assert FirstTokenLimit(None, 2.0).statistic_s(TTFT_S, ANSWERS) == TTFT_S.mean()
    (limit,) = limits(ANSWERS, latency_p90_s=10.0).first_token
    assert limit.step_tokens == np.quantile(ANSWERS, frac) - 1


def test_long_answers_are_late_rather_than_slow_first_tokens() -> None:
    (equal,) = limits(EQUAL_ANSWERS, latency_p90_s=10.0).first_token
    (mixed,) = limits(ANSWERS, latency_p90_s=10.0).first_token
    of_ttft = FirstTokenLimit(0.9, 10.0).statistic_s(TTFT_S, ANSWERS)
    assert equal.statistic_s(TTFT_S, EQUAL_ANSWERS) == pytest.approx(of_ttft)
    assert 0.5 * TTFT_S.mean() < mixed.statistic_s(TTFT_S, ANSWERS) < 0.8 * of_ttft
