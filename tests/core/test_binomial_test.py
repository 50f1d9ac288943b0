"""Test the exact binomial test against sums of binomial terms, kept here as an independent oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.core.binomial_test import CONFIDENCE, max_late, min_queries, quantile_holds

SHARES = (0.5, 0.9, 0.95, 0.99)


def log_binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """Return ln P(X <= successes) for X ~ Binomial(trials, chance), summed relative to its largest term."""
    k = np.arange(1, successes + 1, dtype=np.float64)
    ratios = np.log((trials - k + 1) / k) + math.log(chance / (1 - chance))
    terms = trials * math.log1p(-chance) + np.concatenate(([0.0], np.cumsum(ratios)))
    largest = float(terms.max())
    return min(0.0, largest + math.log(float(np.exp(terms - largest).sum())))


def holds_by_sums(late: int, queries: int, share: float) -> bool:
    return log_binomial_cdf(late, queries, 1 - share) < math.log(1 - CONFIDENCE)


@given(st.floats(math.log(459), math.log(2e7)))
def test_p99_verdict_edge_equals_the_summed_terms(log_queries: float) -> None:
    queries = int(math.exp(log_queries))
    edge = max_late(queries, 0.99)
    assert quantile_holds(edge, queries, 0.99)
    assert holds_by_sums(edge, queries, 0.99)
    assert not holds_by_sums(edge + 1, queries, 0.99)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("queries", [1, 7, 90, 459, 5000, 20_000])
def test_verdict_edge_of_every_share_equals_the_summed_terms(share: float, queries: int) -> None:
    edge = max_late(queries, share)
    assert edge < queries
    assert edge < 0 or holds_by_sums(edge, queries, share)
    assert not holds_by_sums(edge + 1, queries, share)


@pytest.mark.parametrize(("share", "queries"), [(0.5, 7), (0.9, 44), (0.95, 90), (0.99, 459)])
def test_min_queries_are_the_first_that_convince(share: float, queries: int) -> None:
    assert min_queries(share) == queries
    assert max_late(queries, share) == 0
    assert max_late(queries - 1, share) == -1


def test_no_query_shows_nothing() -> None:
    assert not quantile_holds(0, 0, 0.99)
    assert max_late(0, 0.99) == -1
