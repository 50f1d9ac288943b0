"""Test that a run counts as futile exactly when it can no longer hold its SLO."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tune.analysis.slo import late_requests
from tune.capacity.futility import find_futility, more_than_half
from tune.loadgen.early_stopping import MIN_QUERIES, late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.spec.load import Slo

SLO = Slo(ttft_p99_s=4.5, tpot_p99_s=0.08)
SECOND_NS = 10**9


def request_log(late: np.ndarray, tokens: int = 101, by_tpot: bool = False) -> RequestLog:
    """Return one request a second; late ones answer after 5 s, or at 90 ms a token."""
    n = len(late)
    scheduled = np.arange(n) * SECOND_NS
    first = scheduled + np.where(late & (not by_tpot), 5 * SECOND_NS, SECOND_NS)
    token_ns = np.where(late & by_tpot, 90, 50) * 10**6
    whole = np.full(n, tokens)
    no_worker = np.full(n, -1)
    return RequestLog(
        scheduled, first, first + token_ns * (whole - 1), whole, whole, no_worker, no_worker, np.full(n, "")
    )


lates = st.tuples(st.integers(500, 3000), st.floats(0, 0.05), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[0]) < drawn[1]
)


@hypothesis_settings(deadline=None)
@given(lates, st.booleans())
def test_a_run_is_futile_exactly_when_the_whole_run_misses(late: np.ndarray, by_tpot: bool) -> None:
    log = request_log(late, by_tpot=by_tpot)
    futility = find_futility(log, SLO, len(log))
    assert (futility is None) == (late.sum() <= late_allowed(len(log)))
    if futility:
        counted = late[: futility.queries]
        assert counted.sum() > late_allowed(len(log))
        assert futility.queries >= MIN_QUERIES
        if futility.queries > MIN_QUERIES:
            assert counted.sum() == late_allowed(len(log)) + 1
            assert counted[-1], "one request earlier it could still hold"
            assert find_futility(first_requests(log, futility.queries - 1), SLO, len(log)) is None
        assert futility.after_ns == log.done_ns[: futility.queries].max()


def test_each_limit_counts_separately_and_a_lifted_one_never() -> None:
    late = np.arange(1000) % 100 == 0
    first, slow = request_log(late), request_log(np.roll(late, 1), by_tpot=True)
    mixed = replace(first, done_ns=first.first_token_ns + slow.done_ns - slow.first_token_ns)
    assert [int(each.sum()) for each in late_requests(mixed, SLO)] == [10, 10]
    assert len(late_requests(mixed, Slo(ttft_p99_s=None, tpot_p99_s=0.08))) == 1
    assert find_futility(mixed, Slo(ttft_p99_s=None, tpot_p99_s=None), 1000) is None


def test_an_unanswered_request_counts_as_late() -> None:
    log, cut = request_log(np.zeros(1000, bool)), np.arange(1000) < 50
    unanswered = replace(
        log,
        first_token_ns=np.where(cut, -1, log.first_token_ns),
        done_ns=np.where(cut, -1, log.done_ns),
        error=np.where(cut, "cut", ""),
    )
    futility = find_futility(unanswered, SLO, 1000)
    assert futility is not None
    assert futility.queries == MIN_QUERIES


def test_a_run_too_short_for_a_verdict_is_never_futile() -> None:
    assert find_futility(request_log(np.ones(300, bool)), SLO, 300) is None


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_more_than_half_consumes_no_more_verdicts_than_needed(held: list[bool]) -> None:
    consumed: list[bool] = []

    def verdicts() -> Iterator[bool]:
        for verdict in held:
            consumed.append(verdict)
            yield verdict

    assert more_than_half(verdicts(), len(held)) == (sum(held) > len(held) / 2)
    undecided = consumed[:-1]
    assert 2 * sum(undecided) <= len(held)
    assert 2 * (len(undecided) - sum(undecided)) < len(held)
