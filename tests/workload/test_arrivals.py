"""Test LoadGen's arrival schedule against its own logs and the distribution it samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loads import make_load

from tune.spec.load import MLPERF_SCHEDULE_SEED, Load
from tune.workload.arrivals import arrivals_ns, generated_query_duration_ns, schedule_ns


def mt19937(seed: int) -> Iterator[int]:
    """Yield the words of the 32-bit Mersenne Twister. Source: Matsumoto and Nishimura, mt19937ar.c, 2002."""
    state = [seed % 2**32]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) % 2**32)
    while True:
        for i in range(624):
            y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7FFFFFFF)
            state[i] = state[(i + 397) % 624] ^ y >> 1 ^ (0x9908B0DF if y & 1 else 0)
        for word in state:
            y = word ^ word >> 11
            y ^= y << 7 & 0x9D2C5680
            y ^= y << 15 & 0xEFC60000
            yield y ^ y >> 18


def test_schedule_equals_the_published_one_to_the_nanosecond() -> None:
    """`generated_query_duration` of the published run: 16,626 queries at 15.75 QPS."""
    assert generated_query_duration_ns(16_626, 15.75, MLPERF_SCHEDULE_SEED) == 1_055_028_977_942
    assert schedule_ns(16_626, 15.75, MLPERF_SCHEDULE_SEED)[-1] == 1_055_026_213_943


def test_seed_is_taken_modulo_32_bits() -> None:
    """std::mt19937 keeps 32 bits of its seed."""
    whole, low_word = (
        schedule_ns(50, 2.0, seed) for seed in (MLPERF_SCHEDULE_SEED, MLPERF_SCHEDULE_SEED % 2**32)
    )
    assert np.array_equal(whole, low_word)


def test_the_first_words_of_mt19937_are_the_published_ones() -> None:
    words = mt19937(5489)
    assert [next(words), next(words)] == [3499211612, 581869302]


@pytest.mark.parametrize("seed", [0, 5489, 2**40 + 5, MLPERF_SCHEDULE_SEED])
def test_a_gap_comes_from_two_words_of_mt19937_low_word_first(seed: int) -> None:
    words = mt19937(seed)
    expected = [0]
    for _ in range(999):
        uniform = (next(words) + next(words) * 2.0**32) / 2.0**64
        expected.append(expected[-1] + int(-math.log(1.0 - uniform) / 900.0 * 1e9))
    assert np.abs(schedule_ns(1000, 900.0, seed) - np.array(expected)).max() <= 1


@given(queries=st.integers(2, 300), seed=st.integers(0, 2**64), target_qps=st.floats(0.01, 1e4))
def test_schedule_starts_at_zero_and_never_decreases(queries: int, seed: int, target_qps: float) -> None:
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


def test_other_seeds_give_other_schedules() -> None:
    assert not np.array_equal(schedule_ns(10, 1.0, 1), schedule_ns(10, 1.0, 2))


@pytest.mark.parametrize("queries", [0, -1])
def test_no_queries_is_an_error(queries: int) -> None:
    with pytest.raises(ValueError, match=f"queries is {queries}"):
        schedule_ns(queries, 1.0, 0)


def test_the_published_run_has_two_passes() -> None:
    arrivals = arrivals_ns(make_load(samples=8313))
    assert len(arrivals) == 16_626
    assert arrivals[-1] == 1_055_026_213_943


@given(
    duration_s=st.floats(0.01, 20),
    queries=st.integers(1, 300),
    qps=st.floats(1, 100),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_fewest_sufficient_passes_are_made(
    duration_s: float, queries: int, qps: float, seed: int
) -> None:
    load = make_load(min_duration_s=duration_s, min_queries=queries, target_qps=qps, seed=seed)
    arrivals = arrivals_ns(load)
    assert len(arrivals) % 40 == 0
    assert len(arrivals) >= queries
    assert lasts(load, arrivals)
    one_pass_less = len(arrivals) - 40
    assert one_pass_less < queries or not lasts(load, arrivals[:one_pass_less])


def lasts(load: Load, arrivals: np.ndarray) -> bool:
    return bool(arrivals[-1] >= load.min_duration_ms * 10**6)


@given(duration_s=st.floats(0.01, 5), queries=st.integers(1, 300), qps=st.floats(1, 100))
def test_without_permutations_the_count_is_rate_times_duration(
    duration_s: float, queries: int, qps: float
) -> None:
    load = make_load(
        concatenate_permutation=False, min_duration_s=duration_s, min_queries=queries, target_qps=qps
    )
    arrivals = arrivals_ns(load)
    assert len(arrivals) == max(queries, math.ceil(qps * duration_s))
    assert np.array_equal(arrivals, schedule_ns(len(arrivals), qps, MLPERF_SCHEDULE_SEED))
