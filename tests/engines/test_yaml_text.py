from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tune.engines.trtllm.extra_keys import FLAT_ONLY_KEYS, NESTED_ONLY_KEYS, TYPED_KEYS
from tune.engines.trtllm.known_keys import FLAT_KEYS
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.engines.trtllm.trtllm_groups import CudaGraphConfig
from tune.engines.trtllm.yaml_text import engine_keys, engine_yaml
from tune.errors import ConfigurationError

CONF = Path(__file__).parents[2] / "conf"

GRAPH_SIZES = [1, 2, 4, 8, 16, 32, 64, 96, 128, 150, 180, 192, 224, 256, 288, 352, 416, 480, 512]

# What the document of NVIDIA's MLPerf Inference v5.1 submission writes for its two pools.
PUBLISHED_PREFILL = {
    "backend": "pytorch",
    "tensor_parallel_size": 4,
    "pipeline_parallel_size": 1,
    "max_batch_size": 128,
    "max_num_tokens": 4096,
    "max_seq_len": 20192,
    "kv_cache_dtype": "fp8",
    "disable_overlap_scheduler": True,
    "enable_chunked_prefill": True,
    "kv_cache_config": {"free_gpu_memory_fraction": 0.95, "enable_block_reuse": False},
    "cache_transceiver_config": {"max_num_tokens": 20192},
    "scheduler_config": {
        "capacity_scheduler_policy": "MAX_UTILIZATION",
        "context_chunking_policy": "FIRST_COME_FIRST_SERVED",
    },
}
PUBLISHED_DECODE = {
    "backend": "pytorch",
    "tensor_parallel_size": 4,
    "pipeline_parallel_size": 1,
    "max_batch_size": 512,
    "max_num_tokens": 512,
    "max_seq_len": 20192,
    "kv_cache_dtype": "fp8",
    "disable_overlap_scheduler": False,
    "use_cuda_graph": True,
    "cuda_graph_padding_enabled": True,
    "cuda_graph_batch_sizes": GRAPH_SIZES,
    "kv_cache_config": {"free_gpu_memory_fraction": 0.95, "enable_block_reuse": False},
    "cache_transceiver_config": {"max_num_tokens": 20192},
}


def settings(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CONF / name).read_text())
    return loaded


def engine(name: str, **changes: Any) -> TrtLlmEngine:
    return TrtLlmEngine.model_validate(settings(name) | changes, strict=False)


PREFILL, DECODE = "prefill/chunked.yaml", "decode/continuous.yaml"


@pytest.mark.parametrize(("name", "published"), [(PREFILL, PUBLISHED_PREFILL), (DECODE, PUBLISHED_DECODE)])
def test_flat_default_is_the_published_engine(name: str, published: dict[str, Any]) -> None:
    assert yaml.safe_load(engine_yaml(engine(name), "flat")) == published


def test_nested_writes_null_where_flat_writes_nothing() -> None:
    flat, nested = (engine_keys(engine(PREFILL), generation) for generation in ("flat", "nested"))
    assert not any("cuda_graph" in key for key in flat)
    assert nested["cuda_graph_config"] is None
    assert "cuda_graph_config: null\n" in engine_yaml(engine(PREFILL), "nested")


def test_nested_moves_the_renamed_keys() -> None:
    nested = yaml.safe_load(engine_yaml(engine(DECODE), "nested"))
    assert nested["kv_cache_config"]["dtype"] == "fp8"
    assert nested["cuda_graph_config"] == {"enable_padding": True, "batch_sizes": GRAPH_SIZES}
    assert nested["cache_transceiver_config"] == {"backend": "DEFAULT", "max_tokens_in_buffer": 20192}
    assert not FLAT_ONLY_KEYS & nested.keys()


@pytest.mark.parametrize("generation", ["flat", "nested"])
def test_unset_settings_are_absent(generation: Any) -> None:
    keys = engine_keys(engine(DECODE), generation)
    assert not {"enable_chunked_prefill", "stream_interval", "scheduler_config"} & keys.keys()
    half = engine(PREFILL, scheduler_config={"capacity_scheduler_policy": "MAX_UTILIZATION"})
    assert engine_keys(half, generation)["scheduler_config"] == {
        "capacity_scheduler_policy": "MAX_UTILIZATION"
    }


def test_transceiver_backend_is_refused_in_flat_yaml() -> None:
    ucx = engine(DECODE, cache_transceiver_config={"backend": "UCX", "max_tokens_in_buffer": 20192})
    assert engine_keys(ucx, "nested")["cache_transceiver_config"]["backend"] == "UCX"
    with pytest.raises(ConfigurationError, match="found UCX, expected DEFAULT"):
        engine_keys(ucx, "flat")


@pytest.mark.parametrize("key", sorted(TYPED_KEYS | FLAT_ONLY_KEYS))
def test_nested_rejects_typed_and_flat_keys_in_extra(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"extra.{key}"):
        engine_keys(engine(DECODE, extra={key: 1}), "nested")


@pytest.mark.parametrize("key", [*sorted(TYPED_KEYS | NESTED_ONLY_KEYS), "use_cuda_graph"])
def test_flat_rejects_typed_and_nested_keys_in_extra(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"extra.{key}"):
        engine_keys(engine(DECODE, extra={key: 1}), "flat")


def test_flat_keys_are_those_of_the_class_that_refuses_all_others() -> None:
    """Names and their count are those of TorchLlmArgs and its base class in TensorRT-LLM cd2f9fa."""
    assert len(FLAT_KEYS) == 72
    assert FLAT_KEYS >= FLAT_ONLY_KEYS
    assert {"attention_dp_config", "torch_compile_config", "max_lora_rank", "build_config"} <= FLAT_KEYS
    assert {"allreduce_strategy", "num_serve_frontends", "moe_config"} <= NESTED_ONLY_KEYS


def test_value_that_yaml_cannot_write_is_named() -> None:
    with pytest.raises(ConfigurationError, match="YAML cannot write"):
        engine_yaml(engine(DECODE, extra={"hook": object()}), "nested")


texts = st.text(alphabet="a: #'\"{}[]&*!|>%@`$\n\t~é0", max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
plain = scalars | st.lists(scalars, max_size=3) | st.dictionaries(texts, scalars, max_size=3)


@pytest.mark.slow
@hypothesis_settings(max_examples=50, deadline=None)
@given(extra=st.dictionaries(st.text(alphabet="abcxyz_", min_size=1, max_size=8), plain, max_size=4))
def test_extra_passes_through_untouched(extra: dict[str, Any]) -> None:
    for generation in ("flat", "nested"):
        written = yaml.safe_load(engine_yaml(engine(DECODE, extra=extra), generation))
        assert {key: written[key] for key in extra} == extra
        assert written.keys() - extra.keys() == engine_keys(engine(DECODE), generation).keys()


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4096), min_size=1, unique=True),
    padding=st.booleans(),
    tensor_parallel_size=st.sampled_from([1, 2, 4, 8]),
    stream_interval=st.none() | st.integers(1, 50),
)
def test_both_generations_hold_the_same_settings(
    sizes: list[int], padding: bool, tensor_parallel_size: int, stream_interval: int | None
) -> None:
    subject = engine(
        DECODE, tensor_parallel_size=tensor_parallel_size, stream_interval=stream_interval
    ).model_copy(
        update={"cuda_graph_config": CudaGraphConfig(batch_sizes=tuple(sizes), enable_padding=padding)}
    )
    flat = yaml.safe_load(engine_yaml(subject, "flat"))
    nested = yaml.safe_load(engine_yaml(subject, "nested"))
    graphs = nested.pop("cuda_graph_config")
    assert graphs["batch_sizes"] == flat.pop("cuda_graph_batch_sizes")
    assert graphs["enable_padding"] == flat.pop("cuda_graph_padding_enabled")
    assert flat.pop("use_cuda_graph")
    assert nested["kv_cache_config"].pop("dtype") == flat.pop("kv_cache_dtype")
    transceivers = nested.pop("cache_transceiver_config"), flat.pop("cache_transceiver_config")
    assert transceivers[0]["max_tokens_in_buffer"] == transceivers[1]["max_num_tokens"]
    assert nested == flat
