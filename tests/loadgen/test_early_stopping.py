import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tune.loadgen.early_stopping import MIN_QUERIES, holds, late_allowed, log_binomial_cdf, queries_needed


@pytest.mark.parametrize(
    ("queries", "late"),
    [(1, -1), (458, -1), (459, 0), (661, 0), (662, 1), (8313, 62), (16_626, 136)],
)
def test_late_requests_that_a_p99_forgives(queries, late):
    assert late_allowed(queries) == late


@pytest.mark.parametrize(
    ("late", "queries"),
    [(0, 459), (1, 662), (9, 700 + 1174), (30, 600 + 3933), (62, None), (136, None)],
    ids=["LoadGen 6.0.17 at 458", "at 661", "at 700", "at 600", "of 8313", "of 16626"],
)
def test_queries_that_late_ones_need(late, queries):
    needed = queries_needed(late)
    assert queries in (None, needed)
    assert holds(late, needed)
    assert not holds(late, needed - 1)


def test_no_query_shows_nothing():
    assert MIN_QUERIES == 459
    assert not holds(0, 0)
    assert not holds(0, 1)
    assert not holds(5, 5)


def test_negative_late_is_a_mistake():
    with pytest.raises(ValueError, match="-1 late requests; expected 0 or more"):
        queries_needed(-1)


@given(st.data(), st.integers(1, 5000), st.floats(1e-4, 0.9999))
def test_binomial_tail_is_scipys(data, trials, chance):
    successes = data.draw(st.integers(0, trials))
    expected = binom.cdf(successes, trials, chance)
    ours = math.exp(log_binomial_cdf(successes, trials, chance))
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-100)


@given(st.integers(0, 3000))
def test_needed_queries_are_the_fewest(late):
    needed = queries_needed(late)
    assert binom.cdf(late, needed, 0.01) < 0.01
    assert binom.cdf(late, needed - 1, 0.01) >= 0.01 - 1e-12


@given(st.integers(459, 200_000))
def test_allowed_late_are_the_most(queries):
    late = late_allowed(queries)
    assert holds(late, queries)
    assert not holds(late + 1, queries)
    assert late < queries * (1 - 0.99)


def test_far_tails_do_not_underflow():
    assert log_binomial_cdf(0, 2_000_000, 0.01) == pytest.approx(2_000_000 * math.log(0.99))
