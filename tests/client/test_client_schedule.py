from collections.abc import Callable

import numpy as np
import pytest
from support.right_client import make_settings

from tune.client.client_settings import ClientRun
from tune.client.schedule import draw_schedule
from tune.deploy.plan import client_json
from tune.errors import ConfigurationError
from tune.sim.admission import answers
from tune.spec.trial import TrialSpec


def test_every_query_has_its_arrival_and_its_lengths() -> None:
    schedule = draw_schedule(make_settings(load__min_queries=161))
    assert len(schedule) == len(schedule.input_tokens) == len(schedule.output_tokens) == 200
    assert schedule.arrival_ns[0] == 0
    assert 10 <= schedule.input_tokens.min() < schedule.input_tokens.max() <= 400
    assert 1 <= schedule.output_tokens.min() < schedule.output_tokens.max() <= 30


def test_two_seeds_decide_two_things() -> None:
    one, other_arrivals, other_lengths = (
        draw_schedule(make_settings(**seeds)) for seeds in ({}, {"load__seed": 4}, {"load__shuffle_seed": 4})
    )
    assert not np.array_equal(one.arrival_ns, other_arrivals.arrival_ns)
    assert np.array_equal(one.arrival_ns, other_lengths.arrival_ns)
    assert np.array_equal(one.input_tokens, other_arrivals.input_tokens)
    assert not np.array_equal(one.input_tokens, other_lengths.input_tokens)


def test_lengths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv"):
        draw_schedule(make_settings(load__dataset__path="/nowhere.csv"))


def test_no_more_is_asked_than_max_seq_len_leaves() -> None:
    free, held = draw_schedule(make_settings()), draw_schedule(make_settings(max_seq_len=150))
    assert np.array_equal(held.output_tokens, free.output_tokens)
    assert np.array_equal(held.most_tokens, held.fewest_tokens)
    cut = held.most_tokens < free.most_tokens
    assert np.array_equal(held.most_tokens[~cut], free.most_tokens[~cut])
    fits = cut & (held.input_tokens < 150)
    assert fits.any()
    assert set((held.input_tokens + held.most_tokens)[fits]) == {150}
    assert set(held.most_tokens[held.input_tokens >= 150]) == {1}


def test_it_asks_for_what_the_simulated_rack_answers(make_spec: Callable[..., TrialSpec]) -> None:
    spec = make_spec(decode__max_seq_len=12_000)
    asked = draw_schedule(ClientRun.model_validate_json(client_json(spec)))
    answered = answers(spec, asked.input_tokens, asked.output_tokens)
    assert np.array_equal(asked.most_tokens, answered)
    assert (answered < asked.output_tokens).any()
