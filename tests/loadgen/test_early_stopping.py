import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tune.loadgen.early_stopping import MIN_QUERIES, holds, late_allowed, queries_needed


@pytest.mark.parametrize(
    ("queries", "late"),
    [(1, -1), (458, -1), (459, 0), (661, 0), (662, 1), (8313, 62), (16_626, 136)],
)
def test_late_allowed_equals_published_figures(queries, late):
    assert late_allowed(queries) == late


@pytest.mark.parametrize(
    ("late", "queries"),
    [(0, 459), (1, 662), (9, 700 + 1174), (30, 600 + 3933), (62, None), (136, None)],
    ids=["LoadGen 6.0.17 at 458", "at 661", "at 700", "at 600", "of 8313", "of 16626"],
)
def test_queries_needed_equals_what_loadgen_prints(late, queries):
    needed = queries_needed(late)
    assert queries in (None, needed)
    assert holds(late, needed)
    assert not holds(late, needed - 1)


def test_no_query_shows_nothing():
    assert MIN_QUERIES == 459
    assert not holds(0, 0)
    assert not holds(0, 1)
    assert not holds(5, 5)


def test_negative_late_count_raises():
    with pytest.raises(ValueError, match="-1 late requests; expected 0 or more"):
        queries_needed(-1)


@given(st.integers(0, 3000))
def test_queries_needed_is_the_fewest_that_pass(late):
    needed = queries_needed(late)
    assert binom.cdf(late, needed, 0.01) < 0.01
    assert binom.cdf(late, needed - 1, 0.01) >= 0.01 - 1e-12


@given(st.integers(459, 200_000))
def test_late_allowed_is_the_most_that_passes(queries):
    late = late_allowed(queries)
    assert holds(late, queries)
    assert not holds(late + 1, queries)
    assert late < queries * (1 - 0.99)
