"""Write an engine's settings as TensorRT-LLM reads them.

The typed settings have today's names. The flat generation (1.0.0rc before rc4) spells four of them
differently and captures no CUDA graph by default; today's captures them unless `cuda_graph_config` is null.
Source: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py and tensorrt_llm/_torch/pyexecutor/config.py.
"""

from __future__ import annotations

from typing import Any

import yaml

from tune.engines.trtllm.extra_keys import conflicting_keys
from tune.engines.trtllm.trtllm_engine import Generation, TrtLlmEngine
from tune.engines.trtllm.trtllm_groups import CudaGraphConfig
from tune.errors import ConfigurationError


def engine_keys(engine: TrtLlmEngine, generation: Generation) -> dict[str, Any]:
    """Return the keys and values of one engine's YAML, in the order in which they are written.

    A setting that is None is left out. Raises ConfigurationError where a key that is passed through clashes
    with a typed setting or is none of this generation, and where the flat generation has no key for the
    transceiver's backend.
    """
    _reject_clashes(engine, generation)
    return written_keys(engine, generation)


def written_keys(engine: TrtLlmEngine, generation: Generation) -> dict[str, Any]:
    """Return the keys and values of one engine's YAML without a check whether the generation has them."""
    keys = _shared_keys(engine)
    keys |= _flat_keys(engine) if generation == "flat" else _nested_keys(engine)
    if generation == "nested_1_0" and engine.cache_transceiver_config:
        keys["cache_transceiver_config"]["backend"] = engine.cache_transceiver_config.backend.lower()
    if engine.scheduler_config is not None:
        scheduler = engine.scheduler_config
        policies = {
            key: value for key, value in scheduler if value is not None or key in scheduler.other_keys
        }
        keys["scheduler_config"] = policies
    return keys | engine.extra


def engine_yaml(engine: TrtLlmEngine, generation: Generation) -> str:
    """Return the text of one engine's YAML, in block style and a stable order.

    Raises ConfigurationError where the generation of the YAML cannot hold a setting, and where `extra` holds
    a value that YAML cannot write.
    """
    try:
        return yaml.safe_dump(
            engine_keys(engine, generation), sort_keys=False, default_flow_style=False, allow_unicode=True
        )
    except yaml.representer.RepresenterError as error:
        raise ConfigurationError(
            f"extra: found a value that YAML cannot write ({error.args[-1]!r}), expected plain numbers, "
            "texts, lists and mappings. Change `extra` of the pool."
        ) from error


def _reject_clashes(engine: TrtLlmEngine, generation: Generation) -> None:
    for path, (found, reason) in conflicting_keys(engine, generation).items():
        raise ConfigurationError(
            f"{path}: found {found!r}, expected no such key: {reason}. Remove it and use the typed setting, "
            "or today's name with another stack."
        )
    transceiver = engine.cache_transceiver_config
    if generation == "flat" and transceiver and transceiver.backend != "DEFAULT":
        raise ConfigurationError(
            f"cache_transceiver_config.backend: found {transceiver.backend}, expected DEFAULT: the flat "
            "engine YAML has no key for it. Use stack=dynamo_v1, or DEFAULT."
        )


def _shared_keys(engine: TrtLlmEngine) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "backend": engine.backend,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "pipeline_parallel_size": engine.pipeline_parallel_size,
        "context_parallel_size": engine.context_parallel_size,
        "max_batch_size": engine.max_batch_size,
        "max_num_tokens": engine.max_num_tokens,
        "max_seq_len": engine.max_seq_len,
        "disable_overlap_scheduler": engine.disable_overlap_scheduler,
        "enable_chunked_prefill": engine.enable_chunked_prefill,
        "stream_interval": engine.stream_interval,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _flat_keys(engine: TrtLlmEngine) -> dict[str, Any]:
    transceiver, graphs = engine.cache_transceiver_config, engine.cuda_graph_config
    buffer = transceiver and transceiver.max_tokens_in_buffer
    keys: dict[str, Any] = {"kv_cache_dtype": engine.kv_cache_config.dtype}
    if graphs is not None:
        keys |= {"use_cuda_graph": True, "cuda_graph_padding_enabled": graphs.enable_padding}
        keys["cuda_graph_batch_sizes"] = list(graphs.sizes)
    keys |= {"kv_cache_config": engine.kv_cache_config.model_dump(exclude={"dtype"})}
    if transceiver:
        keys |= {"cache_transceiver_config": {} if buffer is None else {"max_num_tokens": buffer}}
    return keys


def _nested_keys(engine: TrtLlmEngine) -> dict[str, Any]:
    graphs, transceiver = engine.cuda_graph_config, engine.cache_transceiver_config
    return {
        "cuda_graph_config": graphs
        and {"enable_padding": graphs.enable_padding, **_sizes(graphs), **graphs.other_keys},
        "kv_cache_config": engine.kv_cache_config.model_dump(),
        "cache_transceiver_config": transceiver
        and {"backend": transceiver.backend, **transceiver.model_dump()},
    }


def _sizes(graphs: CudaGraphConfig) -> dict[str, Any]:
    """Return those of the two keys for the sizes of the CUDA graphs that are set."""
    return graphs.model_dump(mode="json", include={"batch_sizes", "max_batch_size"})
