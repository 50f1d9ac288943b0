from collections.abc import Callable

import numpy as np
import pytest
from support.right_client import make_settings

from tune.client.client_settings import ClientRun
from tune.client.schedule import draw_schedule
from tune.deploy.plan import client_json
from tune.errors import ConfigurationError
from tune.sim.admission import answered_tokens
from tune.spec.trial import TrialSpec


def test_each_query_has_an_arrival_and_lengths() -> None:
    schedule = draw_schedule(make_settings(load__min_queries=161))
    assert len(schedule) == len(schedule.input_tokens) == len(schedule.output_tokens) == 200
    assert schedule.arrival_ns[0] == 0
    assert 10 <= schedule.input_tokens.min() < schedule.input_tokens.max() <= 400
    assert 1 <= schedule.output_tokens.min() < schedule.output_tokens.max() <= 30


def test_arrivals_and_lengths_have_separate_seeds() -> None:
    base, other_arrivals, other_lengths = (
        draw_schedule(make_settings(**seeds)) for seeds in ({}, {"load__seed": 4}, {"load__shuffle_seed": 4})
    )
    assert not np.array_equal(base.arrival_ns, other_arrivals.arrival_ns)
    assert np.array_equal(base.arrival_ns, other_lengths.arrival_ns)
    assert np.array_equal(base.input_tokens, other_arrivals.input_tokens)
    assert not np.array_equal(base.input_tokens, other_lengths.input_tokens)


def test_missing_lengths_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv"):
        draw_schedule(make_settings(load__dataset__path="/nowhere.csv"))


def test_requests_fit_into_max_seq_len() -> None:
    free, limited = draw_schedule(make_settings()), draw_schedule(make_settings(max_seq_len=150))
    assert np.array_equal(limited.output_tokens, free.output_tokens)
    assert np.array_equal(limited.max_output_tokens, limited.min_output_tokens)
    cut = limited.max_output_tokens < free.max_output_tokens
    assert np.array_equal(limited.max_output_tokens[~cut], free.max_output_tokens[~cut])
    fits = cut & (limited.input_tokens < 150)
    assert fits.any()
    assert set((limited.input_tokens + limited.max_output_tokens)[fits]) == {150}
    assert set(limited.max_output_tokens[limited.input_tokens >= 150]) == {1}


def test_requested_tokens_equal_those_the_simulator_answers(make_spec: Callable[..., TrialSpec]) -> None:
    spec = make_spec(decode__max_seq_len=12_000)
    schedule = draw_schedule(ClientRun.model_validate_json(client_json(spec)))
    expected = answered_tokens(spec, schedule.input_tokens, schedule.output_tokens)
    assert np.array_equal(schedule.max_output_tokens, expected)
    assert (expected < schedule.output_tokens).any()
