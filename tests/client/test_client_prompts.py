import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.right_client import make_settings

from tune.client.prompts import Prompts, made_ids, made_texts
from tune.client.schedule import draw_schedule
from tune.client.vocabulary import ONE_TOKEN_WORDS
from tune.spec.trtllm_engine import KV_BLOCK_TOKENS
from tune.workload.mlperf_pickle import read_pickle_ids, read_pickle_texts

LONGEST = 400
IDS, TEXTS = made_ids(3, LONGEST), made_texts(3, LONGEST)


def make_prompts(model: str = "llama", **changes: Any) -> Prompts:
    settings = make_settings(**changes)
    return Prompts(model, settings.load, draw_schedule(settings))


def recorded(root: Path) -> dict[str, Any]:
    """Changes that make the 8 prompts of the benchmark's pickle the dataset."""
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"load__dataset__path": str(path), "load__dataset__sha256": sha256, "load__dataset__samples": 8}


@given(position=st.integers(0, 200_000), tokens=st.integers(1, LONGEST))
def test_made_prompts_have_their_length(position: int, tokens: int) -> None:
    ids, text = json.loads(IDS(position, tokens)), json.loads(TEXTS(position, tokens))
    assert len(ids) == tokens
    assert all(type(token) is int and 10_000 <= token < 30_000 for token in ids)
    words = text.split(" ")
    assert len(words) == tokens
    assert set(words) <= set(ONE_TOKEN_WORDS)


def test_the_words_can_be_cut_by_bytes_and_are_enough_to_tell_prompts_apart() -> None:
    assert len(set(ONE_TOKEN_WORDS)) == len(ONE_TOKEN_WORDS) == 128
    assert all(re.fullmatch("[a-z]{4}", word) for word in ONE_TOKEN_WORDS)


@pytest.mark.parametrize("source", [IDS, TEXTS])
def test_no_two_prompts_begin_alike(source: Any) -> None:
    queries = 20_000
    assert len({source(position, KV_BLOCK_TOKENS) for position in range(queries)}) == queries


def test_a_later_run_on_a_deployment_asks_as_much_in_other_prompts() -> None:
    asked = make_settings()
    schedule = draw_schedule(asked)
    first, third = (
        [json.loads(prompts.body(position))["prompt"] for position in range(len(schedule))]
        for prompts in (Prompts("llama", asked.load, schedule, earlier_runs=runs) for runs in (0, 2))
    )
    assert [len(prompt) for prompt in first] == [len(prompt) for prompt in third]
    assert not {tuple(prompt[:4]) for prompt in first} & {tuple(prompt[:4]) for prompt in third}


@pytest.mark.parametrize("make", [made_ids, made_texts])
def test_the_seed_decides_the_prompts(make: Any) -> None:
    assert make(3, 100)(5, 100) == make(3, 100)(5, 100) != make(4, 100)(5, 100)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_body_asks_for_what_was_drawn(api: str) -> None:
    prompts, schedule = make_prompts(load__api=api), draw_schedule(make_settings())
    for position in (0, 1, len(schedule) - 1):
        body = json.loads(prompts.body(position))
        assert body["max_tokens"] == schedule.output_tokens[position]
        assert (body["model"], body["stream"]) == ("llama", True)
        assert body["stream_options"] == {"include_usage": True}
        assert (body["temperature"], body["top_k"], body["ignore_eos"]) == (0, 1, True)
        assert "nvext" not in body
        if api == "completions":
            assert len(body["prompt"]) == schedule.input_tokens[position]
            assert "messages" not in body
        else:
            ((role, content),) = [(one["role"], one["content"]) for one in body["messages"]]
            assert role == "user"
            assert len(content.split()) == schedule.input_tokens[position]
            assert "prompt" not in body


def test_dynamo_of_mid_2025_is_told_in_its_own_object_too(root: Path) -> None:
    made, own = make_settings(), make_settings(**recorded(root))
    said = [
        json.loads(Prompts("llama", asked.load, draw_schedule(asked), nvext=True).body(0))["nvext"]
        for asked in (made, own)
    ]
    assert said == [{"top_k": 1, "ignore_eos": True}, {"top_k": 1}]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_name_is_quoted(api: str) -> None:
    odd = make_prompts('a"b\\c\n%d', load__api=api)
    assert json.loads(odd.body(0))["model"] == 'a"b\\c\n%d'


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_benchmarks_own_prompts_are_asked_whole_and_end_when_the_engine_says(
    root: Path, api: str
) -> None:
    settings = make_settings(load__api=api, **recorded(root))
    load, schedule = settings.load, draw_schedule(settings)
    prompts = Prompts("llama", load, schedule)
    ids, texts = read_pickle_ids(load.dataset), read_pickle_texts(load.dataset)
    asked = []
    for position in range(len(schedule)):
        body = json.loads(prompts.body(position))
        assert body["max_tokens"] == 30
        assert "ignore_eos" not in json.dumps(body)
        asked.append(
            ids.index(body["prompt"]) if api == "completions" else texts.index(body["messages"][0]["content"])
        )
        assert len(ids[asked[-1]]) == schedule.input_tokens[position]
    assert len(schedule) % 8 == 0
    assert all(sorted(asked[at : at + 8]) == list(range(8)) for at in range(0, len(asked), 8))
    assert set(schedule.fewest_tokens) == {1}
    assert set(schedule.output_tokens) == {6, 3, 22, 27, 29, 2, 13, 5}
