import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.right_client import make_settings

from tune.client.prompts import Prompts, random_id_prompts, random_text_prompts
from tune.client.schedule import draw_schedule
from tune.client.vocabulary import ONE_TOKEN_WORDS
from tune.workload.mlperf_pickle import read_pickle_ids, read_pickle_texts

LONGEST = 400
IDS, TEXTS = random_id_prompts(3, LONGEST), random_text_prompts(3, LONGEST)


def make_prompts(model: str = "llama", **changes: Any) -> Prompts:
    settings = make_settings(**changes)
    return Prompts(model, settings.load, draw_schedule(settings))


def recorded(root: Path) -> dict[str, Any]:
    """Return changes that make the 8 prompts of the benchmark's pickle the dataset."""
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"load__dataset__path": str(path), "load__dataset__sha256": sha256, "load__dataset__samples": 8}


@given(position=st.integers(0, 200_000), tokens=st.integers(1, LONGEST))
def test_random_prompts_have_the_requested_length(position: int, tokens: int) -> None:
    ids, text = json.loads(IDS(position, tokens)), json.loads(TEXTS(position, tokens))
    assert len(ids) == tokens
    assert all(type(token) is int and 10_000 <= token < 30_000 for token in ids)
    words = text.split(" ")
    assert len(words) == tokens
    assert set(words) <= set(ONE_TOKEN_WORDS)


def test_vocabulary_has_128_words_of_four_letters() -> None:
    assert len(set(ONE_TOKEN_WORDS)) == len(ONE_TOKEN_WORDS) == 128
    assert all(re.fullmatch("[a-z]{4}", word) for word in ONE_TOKEN_WORDS)


@pytest.mark.parametrize("source", [IDS, TEXTS])
def test_no_two_prompts_share_their_first_block(source: Any) -> None:
    queries, block_tokens = 20_000, 32
    assert len({source(position, block_tokens) for position in range(queries)}) == queries


def test_later_run_sends_other_prompts_of_equal_lengths() -> None:
    settings = make_settings()
    schedule = draw_schedule(settings)
    first, third = (
        [json.loads(prompts.body(position))["prompt"] for position in range(len(schedule))]
        for prompts in (Prompts("llama", settings.load, schedule, earlier_runs=runs) for runs in (0, 2))
    )
    assert [len(prompt) for prompt in first] == [len(prompt) for prompt in third]
    assert not {tuple(prompt[:4]) for prompt in first} & {tuple(prompt[:4]) for prompt in third}


@pytest.mark.parametrize("make", [random_id_prompts, random_text_prompts])
def test_prompts_depend_on_the_seed(make: Any) -> None:
    assert make(3, 100)(5, 100) == make(3, 100)(5, 100) != make(4, 100)(5, 100)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_body_requests_the_drawn_lengths(api: str) -> None:
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
            ((role, content),) = [(message["role"], message["content"]) for message in body["messages"]]
            assert role == "user"
            assert len(content.split()) == schedule.input_tokens[position]
            assert "prompt" not in body


def test_nvext_repeats_options_for_dynamo_of_mid_2025(root: Path) -> None:
    made, own = make_settings(), make_settings(**recorded(root))
    nvext = [
        json.loads(Prompts("llama", settings.load, draw_schedule(settings), nvext=True).body(0))["nvext"]
        for settings in (made, own)
    ]
    assert nvext == [{"top_k": 1, "ignore_eos": True}, {"top_k": 1}]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_model_name_is_escaped_as_json(api: str) -> None:
    odd = make_prompts('a"b\\c\n%d', load__api=api)
    assert json.loads(odd.body(0))["model"] == 'a"b\\c\n%d'


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_benchmark_prompts_are_sent_whole_without_ignore_eos(root: Path, api: str) -> None:
    settings = make_settings(load__api=api, **recorded(root))
    load, schedule = settings.load, draw_schedule(settings)
    prompts = Prompts("llama", load, schedule)
    ids, texts = read_pickle_ids(load.dataset), read_pickle_texts(load.dataset)
    sent = []
    for position in range(len(schedule)):
        body = json.loads(prompts.body(position))
        assert body["max_tokens"] == 30
        assert "ignore_eos" not in json.dumps(body)
        sent.append(
            ids.index(body["prompt"]) if api == "completions" else texts.index(body["messages"][0]["content"])
        )
        assert len(ids[sent[-1]]) == schedule.input_tokens[position]
    assert len(schedule) % 8 == 0
    assert all(sorted(sent[start : start + 8]) == list(range(8)) for start in range(0, len(sent), 8))
    assert set(schedule.min_output_tokens) == {1}
    assert set(schedule.output_tokens) == {6, 3, 22, 27, 29, 2, 13, 5}
