"""The schedule against std::mt19937 written out, and against the figure in the published run's log."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from right_client import DATASET, make_settings

from tune.client.schedule import draw_schedule
from tune.client.settings import ClientSettings
from tune.errors import FixCommand


def mt19937(seed: int) -> Iterator[int]:
    """The 32-bit Mersenne Twister. Source: Matsumoto and Nishimura, mt19937ar.c, 2002."""
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


def arrivals(queries: int, target_qps: float, seed: int) -> list[int]:
    words = mt19937(seed)
    at, found = 0, []
    for _ in range(queries):
        found.append(at)
        u = (next(words) + next(words) * 2.0**32) / 2.0**64
        at += int(-math.log(1.0 - u) / target_qps * 1e9)
    return [*found, at]


@pytest.mark.parametrize(("seed", "number"), [("mlperf", 18209322760996052031), (0, 0), (2**40 + 5, 5)])
def test_arrivals_are_those_of_the_mersenne_twister(seed: object, number: int) -> None:
    schedule = draw_schedule(make_settings(schedule_seed=seed, min_queries=1000, target_qps=900.0))
    expected = arrivals(len(schedule), 900.0, number)
    assert np.abs(schedule.arrival_ns - np.array(expected[:-1])).max() <= 1


def test_the_published_run_is_two_passes() -> None:
    dataset = {**DATASET, "samples": 8313}
    settings = make_settings(target_qps=15.75, min_duration_s=600.0, samples=8313, dataset=dataset)
    schedule = draw_schedule(settings)
    assert len(schedule) == 16626
    assert schedule.arrival_ns[-1] == 1055026213943
    assert (schedule.min_queries, schedule.min_duration_ms) == (100, 600000)


def reaches(settings: ClientSettings, arrival_ns: np.ndarray) -> bool:
    return bool(arrival_ns[-1] >= settings.min_duration_s * 1e9)


@given(
    duration_s=st.floats(0.01, 20),
    queries=st.integers(1, 300),
    qps=st.floats(1, 100),
    seed=st.integers(0, 2**64 - 1),
)
def test_whole_passes_are_the_fewest_that_last(
    duration_s: float, queries: int, qps: float, seed: int
) -> None:
    settings = make_settings(
        min_duration_s=duration_s, min_queries=queries, target_qps=qps, schedule_seed=seed
    )
    schedule = draw_schedule(settings)
    assert len(schedule) % settings.samples == 0
    assert len(schedule) >= queries
    assert reaches(settings, schedule.arrival_ns)
    one_less = len(schedule) - settings.samples
    assert one_less < queries or not reaches(settings, schedule.arrival_ns[:one_less])


@given(duration_s=st.floats(0.01, 5), queries=st.integers(1, 300), qps=st.floats(1, 100))
def test_a_short_probe_makes_loadgen_stop_at_its_count(duration_s: float, queries: int, qps: float) -> None:
    settings = make_settings(
        concatenate_permutation=False, min_duration_s=duration_s, min_queries=queries, target_qps=qps
    )
    schedule = draw_schedule(settings)
    assert len(schedule) == schedule.min_queries == max(queries, math.ceil(qps * duration_s))
    assert schedule.min_duration_ms * 10**6 <= schedule.arrival_ns[-1]
    assert schedule.min_duration_ms <= settings.min_duration_ms


def test_answers_stop_at_the_most_that_is_asked_for() -> None:
    free, capped = (draw_schedule(make_settings(max_output_tokens=most)) for most in (40, 12))
    assert capped.output_tokens.max() == 12 < free.output_tokens.max()
    assert (capped.output_tokens == np.minimum(free.output_tokens, 12)).all()
    assert (capped.input_tokens == free.input_tokens).all()


def test_lengths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(FixCommand, match=r"nowhere\.csv"):
        draw_schedule(make_settings(dataset_path="/nowhere.csv"))
