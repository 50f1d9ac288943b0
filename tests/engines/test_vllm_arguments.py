"""Test that vLLM's arguments are read as they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.engines.dynamo_vllm.argument_reading import (
    comparable_arguments,
    gpus_of_arguments,
    keys_of_arguments,
    longest_prompt_of_arguments,
    settings_of_arguments,
)
from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_processes import engine_arguments, mode_arguments

COUNT = st.integers(1, 10**6)
WORD = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)
EXTRA = st.dictionaries(
    WORD.filter(lambda name: not name.startswith("no_") and name not in VllmEngine.model_fields),
    st.one_of(
        COUNT, st.booleans(), WORD, st.lists(COUNT, min_size=2, max_size=3), st.dictionaries(WORD, COUNT)
    ),
    max_size=3,
)
ENGINES = st.fixed_dictionaries(
    {
        **dict.fromkeys(("tensor_parallel_size", "pipeline_parallel_size"), st.integers(1, 8)),
        **dict.fromkeys(("max_num_seqs", "max_num_batched_tokens", "max_model_len"), COUNT),
        **dict.fromkeys(("block_size", "stream_interval"), st.none() | COUNT),
        "gpu_memory_utilization": st.floats(0.01, 1.0),
        "kv_cache_dtype": st.sampled_from(["auto", "fp8", "nvfp4"]),
        **dict.fromkeys(("enable_prefix_caching", "enable_chunked_prefill", "enforce_eager"), st.booleans()),
        "enable_logging_iteration_details": st.booleans(),
        "async_scheduling": st.none() | st.booleans(),
        "cudagraph_capture_sizes": st.none() | st.lists(COUNT, min_size=1, max_size=4, unique=True),
        "dtype": st.sampled_from(["auto", "bfloat16"]),
        "load_format": st.sampled_from(["auto", "dummy"]),
        "extra": EXTRA,
    }
)


def engine_of(values: dict[str, Any]) -> VllmEngine:
    return VllmEngine.model_validate_json(json.dumps(values))


@settings(max_examples=30)
@given(ENGINES)
def test_what_is_written_is_read_back(drawn: dict[str, Any]) -> None:
    engine = engine_of(drawn)
    words = ("python3", "-m", "dynamo.vllm", "--model", "/m", *mode_arguments("decode"))
    keys = keys_of_arguments("decode", (*words, *engine_arguments(engine)))
    assert engine_of(settings_of_arguments("decode", keys, None)) == engine
    dashed = {name.replace("_", "-"): value for name, value in keys.items()}
    assert comparable_arguments("decode", keys) == comparable_arguments("decode", dashed)


def test_absent_arguments_are_those_of_the_engine() -> None:
    engine = engine_of(settings_of_arguments("decode", {}, 4096))
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.max_model_len) == (1024, 8192, 4096)
    assert engine.enable_prefix_caching, "vLLM's own default, which is not that of conf/prefill/vllm.yaml"


@pytest.mark.parametrize(
    ("words", "keys", "gpus"),
    [
        (("-tp", "2", "-dp", "4"), {"tensor_parallel_size": 2, "data_parallel_size": 4}, 8),
        (("--no-enable-prefix-caching",), {"enable_prefix_caching": False}, 1),
        (("--max-model-len=100", "--served-model-name", "x"), {"max_model_len": 100}, 1),
        (("--a-b.c_d-e", "f"), {"a_b.c_d-e": "f"}, 1),
    ],
)
def test_arguments_have_the_names_of_settings(
    words: tuple[str, ...], keys: dict[str, Any], gpus: int
) -> None:
    found = keys_of_arguments("decode", words)
    assert (found, gpus_of_arguments(found)) == (keys, gpus)
    assert longest_prompt_of_arguments(found) == (99 if "max_model_len" in keys else float("inf"))
