"""Test verdicts on limits: quantiles by the exact binomial test, means by batch means, futility by either."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import make_log, with_errors, with_late_first_tokens

from tune.analysis.slo import (
    MEAN_BATCHES,
    limit_violation,
    mean_bound,
    pooled_slo_holds,
    slo_holds,
    used_frac,
)
from tune.capacity.futility import find_futility
from tune.core.binomial_test import max_late
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import first_requests
from tune.spec.load import Slo
from tune.spec.metrics import LIMITS, TTFT

BY_KEY = {limit.key: limit for limit in LIMITS}
QUANTILES = [limit for limit in LIMITS if limit.statistic.share is not None]


def slo(**limits) -> Slo:
    return Slo.model_validate({"ttft_p99_s": None, "tpot_p99_s": None} | limits)


def violation(key, limit_s, log):
    good = answered(log)
    unanswered = int((~good).sum())
    return limit_violation(BY_KEY[key], limit_s, latencies(log, good), len(log), unanswered)


@pytest.mark.parametrize("share", ["p50", "p90", "p95", "p99"])
def test_quantile_holds_up_to_the_allowed_late_requests(share):
    log = make_log(3000)
    allowed = max_late(3000, BY_KEY[f"ttft_{share}_s"].statistic.share)
    within, beyond = (with_late_first_tokens(log, late, 9.0) for late in (allowed, allowed + 1))
    assert violation(f"ttft_{share}_s", 4.5, within) is None
    assert slo_holds(within, slo(**{f"ttft_{share}_s": 4.5}))
    assert not slo_holds(beyond, slo(**{f"ttft_{share}_s": 4.5}))
    assert violation(f"ttft_{share}_s", 4.5, beyond) == (
        f"{allowed + 1} of 3000 requests over the TTFT limit of 4.5 s; expected at most {allowed} for its "
        f"{share} to hold"
    )


def test_mean_holds_by_its_upper_bound_not_by_the_mean():
    log = make_log(3000)
    times = latencies(log, answered(log))
    bound = mean_bound(times[TTFT])
    mean_s, upper_s = bound.mean_ns / 1e9, bound.upper_ns / 1e9
    assert mean_s == pytest.approx(times[TTFT].mean() / 1e9)
    assert mean_s < upper_s < 1.02 * mean_s
    assert violation("ttft_mean_s", upper_s * 1.001, log) is None
    assert "mean TTFT is 1.5" in violation("ttft_mean_s", (mean_s + upper_s) / 2, log)


def test_mean_bound_covers_the_true_mean_of_correlated_waits():
    """Latencies of neighbours share a slow wave; sd over sqrt(n) would cover the true mean far less often."""
    rng, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(400):
        wave = np.convolve(rng.normal(size=4000 + 99), np.ones(100) / 10, "valid")
        values = (1e9 * (10 + wave)).astype(np.int64)
        bound = mean_bound(values)
        covered += bound.upper_ns >= 10e9
        naive += values.mean() + 2.326 * values.std(ddof=1) / len(values) ** 0.5 >= 10e9
    assert covered / 400 >= 0.97
    assert naive / 400 < 0.8


def test_unanswered_requests_raise_a_mean_and_count_as_late():
    log = make_log(3000)
    failed = with_errors(log, slice(0, 30), "timeout")
    good = answered(failed)
    times = latencies(failed, good)
    assert mean_bound(times[TTFT], 30).mean_ns > mean_bound(times[TTFT]).mean_ns
    assert violation("latency_p99_s", 1e3, failed).startswith("30 of 3000 requests over the latency limit")


def test_mean_of_too_few_requests_has_no_verdict():
    log = make_log(2 * MEAN_BATCHES - 1)
    assert (
        violation("ttft_mean_s", 1e3, log)
        == "39 requests with a TTFT; expected at least 40 for a verdict on its mean"
    )


@given(st.sampled_from(QUANTILES), st.floats(0.3, 3.0))
def test_slo_holds_like_the_violation_says(limit, factor):
    log = make_log(1000)
    times = latencies(log, answered(log))
    limit_s = factor * used_frac(limit, 1.0, times)
    assert slo_holds(log, slo(**{limit.key: limit_s})) == (
        limit_violation(limit, limit_s, times, 1000, 0) is None
    )


@pytest.mark.parametrize("key", ["ttft_mean_s", "tpot_mean_s", "latency_mean_s"])
def test_futility_of_a_mean_ends_a_run_that_cannot_hold(key):
    log = make_log(3000)
    mean_s = used_frac(BY_KEY[key], 1.0, latencies(log, answered(log)))
    futile = find_futility(log, slo(**{key: 0.5 * mean_s}), 3000)
    assert 1400 < futile.queries < 1600
    assert violation(key, 0.5 * mean_s, first_requests(log, futile.queries))
    assert find_futility(log, slo(**{key: 1.001 * mean_s}), 3000) is None


def test_latency_without_values_limits_nothing():
    log = replace(make_log(1000), output_tokens=np.ones(1000, np.int64))
    assert slo_holds(log, slo(tpot_mean_s=0.01, tpot_p50_s=0.01))
    assert pooled_slo_holds([log], slo(tpot_mean_s=0.01, tpot_p50_s=0.01))


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.key)
def test_pooled_verdict_has_no_margin(limit):
    logs = [make_log(1000, seed=seed) for seed in range(3)]
    pooled = make_log(1000, seed=0)
    values = [used_frac(limit, 1.0, latencies(log, answered(log))) for log in [*logs, pooled]]
    assert pooled_slo_holds(logs, slo(**{limit.key: 1.02 * max(values)}))
    assert not pooled_slo_holds(logs, slo(**{limit.key: 0.98 * min(values)}))
