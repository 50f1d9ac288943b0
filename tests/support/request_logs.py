"""Build request logs."""

from dataclasses import replace
from functools import cache

import numpy as np

from support.composed import composed
from tune.records.requests import PoolUse, RequestLog, Stages
from tune.spec.trial import TrialSpec


@cache
def spec(*overrides: str) -> TrialSpec:
    return composed(*overrides).trial_spec


def make_log(queries=1000, qps=15.75, *, ttft_s=1.5, tpot_s=0.045, tokens=600, seed=0) -> RequestLog:
    """Build Poisson arrivals, the first at 0; TTFT and TPOT vary by some percent, tokens by half."""
    rng = np.random.default_rng(seed)
    scheduled = np.concatenate(([0.0], rng.exponential(1 / qps, queries - 1).cumsum()))
    output = np.maximum(2, (tokens * rng.uniform(0.5, 1.5, queries)).astype(np.int64))
    first = scheduled + ttft_s * rng.uniform(0.9, 1.1, queries)
    done = first + (output - 1) * tpot_s * rng.uniform(0.95, 1.05, queries)
    return RequestLog(
        scheduled_ns=ns(scheduled),
        first_token_ns=ns(first),
        done_ns=ns(done),
        input_tokens=rng.integers(200, 20_000, queries),
        output_tokens=output,
        prefill_worker=np.arange(queries) % 14,
        decode_worker=np.arange(queries) % 4,
        error=np.zeros(queries, "<U1"),
    )


def with_stages(log: RequestLog) -> RequestLog:
    """Add stages that split each TTFT 40 : 30 : 10 : 15 : 5, and pools of 2 prefill and 1 decode workers."""
    ttft = log.first_token_ns - log.scheduled_ns
    marks = [log.scheduled_ns + ttft * share // 100 for share in (40, 70, 80, 95)]
    pools = PoolUse(np.array([0.8, 0.6]), np.array([120.5]), np.array([0.9]))
    return replace(log, stages=Stages(*marks), pools=pools)


def with_errors(log: RequestLog, which: slice, text: str) -> RequestLog:
    """Let the requests in `which` fail: no token, no end."""
    error = np.zeros(len(log), f"<U{len(text)}")
    error[which] = text
    failed = error != ""
    return replace(
        log,
        error=error,
        first_token_ns=np.where(failed, -1, log.first_token_ns),
        done_ns=np.where(failed, -1, log.done_ns),
        output_tokens=np.where(failed, 0, log.output_tokens),
    )


def with_late_first_tokens(log: RequestLog, count: int, ttft_s: float) -> RequestLog:
    """Delay the first token of the first `count` requests to `ttft_s`, at the same time per token."""
    first, done = log.first_token_ns.copy(), log.done_ns.copy()
    shift = log.scheduled_ns[:count] + int(ttft_s * 1e9) - first[:count]
    first[:count] += shift
    done[:count] += shift
    return replace(log, first_token_ns=first, done_ns=done)


def ns(seconds: np.ndarray) -> np.ndarray:
    return np.round(seconds * 1e9).astype(np.int64)
