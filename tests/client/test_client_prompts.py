import json

from hypothesis import given
from hypothesis import strategies as st
from right_client import make_settings

from tune.client.prompts import Prompts
from tune.spec.engine import KV_BLOCK_TOKENS

LONGEST = 400
PROMPTS = Prompts(make_settings(), LONGEST)


@given(position=st.integers(0, 200_000), inputs=st.integers(1, LONGEST), outputs=st.integers(1, 2000))
def test_a_body_asks_for_what_was_drawn(position: int, inputs: int, outputs: int) -> None:
    body = json.loads(PROMPTS.body(position, inputs, outputs))
    assert len(body["prompt"]) == inputs
    assert all(type(token) is int and 10_000 <= token < 30_000 for token in body["prompt"])
    assert body["max_tokens"] == outputs
    assert (body["model"], body["stream"], body["stream_options"]) == ("llama", True, {"include_usage": True})
    assert (body["temperature"], body["top_k"], body["ignore_eos"]) == (0, 1, True)


def test_no_two_prompts_begin_alike() -> None:
    queries = 20_000
    beginnings = {PROMPTS.body(position, KV_BLOCK_TOKENS, 1) for position in range(queries)}
    assert len(beginnings) == queries


def test_the_seed_decides_the_prompts() -> None:
    same, other = (Prompts(make_settings(load__length_seed=seed), LONGEST) for seed in (3, 4))
    assert same.body(5, 100, 7) == PROMPTS.body(5, 100, 7) != other.body(5, 100, 7)


def test_a_name_is_quoted() -> None:
    odd = Prompts(make_settings(served_model_name='a"b\\c\n%d'), LONGEST)
    assert json.loads(odd.body(0, 3, 2))["model"] == 'a"b\\c\n%d'
