"""LoadGen's arrival schedule, against its own logs and against the distribution it samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.probe.arrivals import MLPERF_SCHEDULE_SEED, generated_query_duration_ns, schedule_ns


def test_published_schedule_to_the_nanosecond() -> None:
    """`generated_query_duration` of the published run: 16,626 queries at 15.75 QPS."""
    assert generated_query_duration_ns(16_626, 15.75, "mlperf") == 1_055_028_977_942
    assert schedule_ns(16_626, 15.75, "mlperf")[-1] == 1_055_026_213_943


def test_seed_is_taken_modulo_32_bits() -> None:
    """std::mt19937 keeps 32 bits of its seed."""
    by_name = schedule_ns(50, 2.0, "mlperf")
    assert np.array_equal(by_name, schedule_ns(50, 2.0, MLPERF_SCHEDULE_SEED))
    assert np.array_equal(by_name, schedule_ns(50, 2.0, MLPERF_SCHEDULE_SEED % 2**32))


def test_first_gap_comes_from_two_words_of_mt19937_low_word_first() -> None:
    """The first draws of std::mt19937 with its default seed 5489 are 3499211612 and 581869302."""
    uniform = (3499211612 + 581869302 * 2**32) / 2**64
    assert schedule_ns(2, 1.0, 5489)[1] == int(-np.log(1 - uniform) * 1e9)


@given(queries=st.integers(2, 300), seed=st.integers(0, 2**64), target_qps=st.floats(0.01, 1e4))
def test_shape_start_and_order(queries: int, seed: int, target_qps: float) -> None:
    arrivals = schedule_ns(queries, target_qps, seed)
    assert arrivals.dtype == np.int64
    assert arrivals.shape == (queries,)
    assert arrivals[0] == 0
    assert (np.diff(arrivals) >= 0).all()
    assert generated_query_duration_ns(queries, target_qps, seed) >= arrivals[-1]


@given(shorter=st.integers(1, 50), longer=st.integers(50, 100), seed=st.integers(0, 99))
def test_a_shorter_run_is_the_beginning_of_a_longer_one(shorter: int, longer: int, seed: int) -> None:
    assert np.array_equal(schedule_ns(shorter, 3.0, seed), schedule_ns(longer, 3.0, seed)[:shorter])


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_gaps_are_exponential(seed: int) -> None:
    gaps_s = np.diff(schedule_ns(100_000, 20.0, seed)) / 1e9
    assert gaps_s.mean() == pytest.approx(1 / 20.0, rel=0.02)
    assert gaps_s.std() == pytest.approx(1 / 20.0, rel=0.03)
    assert np.median(gaps_s) == pytest.approx(np.log(2) / 20.0, rel=0.03)


def test_seeds_differ() -> None:
    assert not np.array_equal(schedule_ns(10, 1.0, 1), schedule_ns(10, 1.0, 2))


@pytest.mark.parametrize("queries", [0, -1])
def test_no_queries_is_an_error(queries: int) -> None:
    with pytest.raises(ValueError, match=f"queries is {queries}"):
        schedule_ns(queries, 1.0, 0)
