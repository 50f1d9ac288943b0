import numpy as np
import pytest
from right_client import make_settings

from tune.client.schedule import draw_schedule
from tune.errors import FixCommand


def test_every_query_has_its_arrival_and_its_lengths() -> None:
    schedule = draw_schedule(make_settings(load__min_queries=161).load)
    assert len(schedule) == len(schedule.input_tokens) == len(schedule.output_tokens) == 200
    assert schedule.arrival_ns[0] == 0
    assert 10 <= schedule.input_tokens.min() < schedule.input_tokens.max() <= 400
    assert 1 <= schedule.output_tokens.min() < schedule.output_tokens.max() <= 30


def test_two_seeds_decide_two_things() -> None:
    one, other_arrivals, other_lengths = (
        draw_schedule(make_settings(**seeds).load)
        for seeds in ({}, {"load__seed": 4}, {"load__length_seed": 4})
    )
    assert not np.array_equal(one.arrival_ns, other_arrivals.arrival_ns)
    assert np.array_equal(one.arrival_ns, other_lengths.arrival_ns)
    assert np.array_equal(one.input_tokens, other_arrivals.input_tokens)
    assert not np.array_equal(one.input_tokens, other_lengths.input_tokens)


def test_lengths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(FixCommand, match=r"nowhere\.csv"):
        draw_schedule(make_settings(load__dataset__path="/nowhere.csv").load)
