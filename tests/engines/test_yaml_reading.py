"""Test that TensorRT-LLM's YAML is read as it was written, in every generation."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.engines.trtllm.yaml_reading import (
    comparable_keys,
    generation_of_keys,
    gpus_of_keys,
    longest_prompt_of_keys,
    settings_of_keys,
)
from tune.engines.trtllm.yaml_text import engine_yaml
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]


@pytest.mark.parametrize("generation", ["flat", "nested_1_0", "nested"])
@pytest.mark.parametrize("pool", ["prefill", "decode"])
def test_what_is_written_is_read_back(pool: str, generation: str, make_spec: MakeSpec) -> None:
    spec = make_spec(prefill__extra={"print_iter_log": True})
    engine = getattr(spec, pool)
    keys = yaml.safe_load(engine_yaml(engine, generation))
    assert generation_of_keys(keys) == generation
    assert TrtLlmEngine.model_validate_json(json.dumps(settings_of_keys("decode", keys, None))) == engine
    assert gpus_of_keys(keys) == engine.gpus


def test_absent_keys_are_those_of_the_engine() -> None:
    engine = TrtLlmEngine.model_validate(settings_of_keys("decode", {}, context_tokens=4096))
    assert (engine.max_batch_size, engine.max_num_tokens, engine.max_seq_len) == (2048, 8192, 4096)
    assert engine.cuda_graph_config is not None, "the engine captures graphs by default"
    flat = settings_of_keys("decode", {"kv_cache_dtype": "fp8", "max_seq_len": 10}, None)
    assert (flat["cuda_graph_config"], flat["kv_cache_config"]) == (None, {"dtype": "fp8"})


def test_graph_sizes_compare_as_the_engine_sorts_them() -> None:
    assert comparable_keys({"cuda_graph_config": {"batch_sizes": [4, 1, 4]}}) == comparable_keys(
        {"cuda_graph_config": {"batch_sizes": [1, 4]}}
    )
    listed = {"use_cuda_graph": True, "cuda_graph_batch_sizes": [4, 1]}
    assert comparable_keys(listed) == {"use_cuda_graph": True, "cuda_graph_batch_sizes": [1, 4]}
    assert comparable_keys({"cuda_graph_config": None}) == {"cuda_graph_config": None}


@pytest.mark.parametrize(
    ("keys", "longest"),
    [
        ({"max_seq_len": 100}, 99),
        ({"max_seq_len": 100, "max_num_tokens": 50}, 50),
        ({"max_seq_len": 100, "max_num_tokens": 50, "enable_chunked_prefill": True}, 99),
        ({"max_seq_len": 100, "cache_transceiver_config": {"max_tokens_in_buffer": 64}}, 64),
        ({}, float("inf")),
    ],
)
def test_the_longest_prompt_of_a_prefill_worker(keys: dict[str, object], longest: float) -> None:
    assert longest_prompt_of_keys(keys) == longest
