"""Read TensorRT-LLM's YAML, of either generation, as settings: the inverse of yaml_text.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tune.engines.key_shapes import COUNT, COUNTS, GPUS, MAPPING, TEXT, KeyPlace, Shape
from tune.engines.trtllm.extra_keys import FLAT_SPELLING, TYPED_KEYS
from tune.engines.trtllm.trtllm_engine import Generation
from tune.engines.trtllm.trtllm_groups import LARGEST_GRAPH_BY_DEFAULT, flat_graph_sizes
from tune.spec.split import ROLES, Role

_ABSENT: Mapping[str, Any] = {
    "backend": None,
    "disable_overlap_scheduler": None,
    "tensor_parallel_size": 1,
    "max_batch_size": 2048,
    "max_num_tokens": 8192,
    "kv_cache_config": {},
}
"""What holds where the YAML does not say. Source: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py."""

_FLAT_TRANSFER_TOKENS = "max_num_tokens"
"""Name that the flat generation has for max_tokens_in_buffer of the transceiver."""

_WORKER_OPTIONS: Mapping[str, tuple[str, type]] = {
    "--tensor-parallel-size": ("tensor_parallel_size", int),
    "--pipeline-parallel-size": ("pipeline_parallel_size", int),
    "--expert-parallel-size": ("moe_expert_parallel_size", int),
    "--max-batch-size": ("max_batch_size", int),
    "--max-num-tokens": ("max_num_tokens", int),
    "--max-seq-len": ("max_seq_len", int),
    "--kv-block-size": ("kv_cache_config.tokens_per_block", int),
    "--free-gpu-memory-fraction": ("kv_cache_config.free_gpu_memory_fraction", float),
}
"""Keys that options of Dynamo's worker stand for; the YAML wins over them.
Source: ai-dynamo/dynamo, components/src/dynamo/trtllm (backend_args.py, llm_worker.py)."""

_GPUS = ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")

READ_SHAPES: Sequence[tuple[KeyPlace, Shape]] = (
    *(((name,), GPUS) for name in _GPUS),
    *(((name,), COUNT) for name in ("max_num_tokens", "max_seq_len", "cuda_graph_max_batch_size")),
    (("cuda_graph_batch_sizes",), COUNTS),
    *(((name,), MAPPING) for name in ("kv_cache_config", "cache_transceiver_config", "cuda_graph_config")),
    (("cache_transceiver_config", "backend"), TEXT),
    (("cache_transceiver_config", "max_tokens_in_buffer"), COUNT),
    (("cache_transceiver_config", _FLAT_TRANSFER_TOKENS), COUNT),
    (("cuda_graph_config", "batch_sizes"), COUNTS),
)
"""What the functions of this module expect of the keys that they read."""


def generation_of_keys(keys: Mapping[str, Any]) -> Generation:
    """Return the generation of an engine's YAML: the flat one by its names, 1.0 by its small letters."""
    transceiver = keys.get("cache_transceiver_config") or {}
    if FLAT_SPELLING & keys.keys() or _FLAT_TRANSFER_TOKENS in transceiver:
        return "flat"
    return "nested_1_0" if str(transceiver.get("backend", "")).islower() else "nested"


def keys_of_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the keys that options of Dynamo's worker stand for.

    Raises ValueError, with the option and its value, for one that is no number.
    """
    keys: dict[str, Any] = {}
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if option not in _WORKER_OPTIONS:
            continue
        path, kind = _WORKER_OPTIONS[option]
        text = value if equals else following
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"{option} {text}") from None
        group, dot, name = path.partition(".")
        if dot:
            keys.setdefault(group, {})[name] = number
        else:
            keys[path] = number
    return keys


def settings_of_keys(role: Role, keys: Mapping[str, Any], context_tokens: int | None) -> dict[str, Any]:
    """Return the settings of a pool: typed ones under their names, any other key at the top in `extra`.

    Parameters
    ----------
    role
        The pool: aggregated workers have no transceiver where their keys name none.
    keys
        The keys of an engine's YAML, of either generation.
    context_tokens
        Longest sequence of the model, which holds where the keys limit none.

    Returns
    -------
    dict[str, Any]
        The settings, not yet validated. Where a key is absent they state the engine's default.
    """
    flat = generation_of_keys(keys) == "flat"
    today = _today(keys)
    absent = {**_ABSENT, "max_seq_len": context_tokens, "cuda_graph_config": None if flat else {}}
    absent["cache_transceiver_config"] = {} if role in ROLES else None
    typed = TYPED_KEYS & today.keys()
    return {
        **{name: value for name, value in absent.items() if name not in today},
        **{name: value for name, value in today.items() if name in typed},
        "extra": {name: value for name, value in today.items() if name not in typed},
    }


def comparable_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys with the sizes of CUDA graphs as the engine sorts or derives them."""
    graphs = keys.get("cuda_graph_config") or {}
    comparable = dict(keys)
    if graphs.get("batch_sizes"):
        comparable["cuda_graph_config"] = {**graphs, "batch_sizes": sorted(set(graphs["batch_sizes"]))}
    if keys.get("use_cuda_graph"):
        comparable["cuda_graph_batch_sizes"] = _flat_sizes(keys)
        comparable.pop("cuda_graph_max_batch_size", None)
    return comparable


def gpus_of_keys(keys: Mapping[str, Any]) -> int:
    """Return the GPUs of a worker: the product of its tensor, pipeline and context parallelism."""
    return math.prod(keys.get(name) or 1 for name in _GPUS)


def longest_prompt_of_keys(keys: Mapping[str, Any]) -> float:
    """Return the most tokens of a prompt that a worker takes; infinite where nothing limits it."""
    transceiver = keys.get("cache_transceiver_config") or {}
    limits = [(keys.get("max_seq_len") or math.inf) - 1]
    limits += [
        transceiver[name] for name in ("max_tokens_in_buffer", _FLAT_TRANSFER_TOKENS) if transceiver.get(name)
    ]
    if not keys.get("enable_chunked_prefill") and keys.get("max_num_tokens"):
        limits.append(keys["max_num_tokens"])
    return float(min(limits))


def _flat_sizes(keys: Mapping[str, Any]) -> list[int]:
    """Return the sizes of CUDA graphs that the flat keys list, or those that its engine derives from them."""
    listed = keys.get("cuda_graph_batch_sizes")
    if listed:
        return sorted(set(listed))
    largest = keys.get("cuda_graph_max_batch_size") or LARGEST_GRAPH_BY_DEFAULT
    return list(flat_graph_sizes(largest, keys.get("cuda_graph_padding_enabled", False)))


def _today(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of any generation under today's names."""
    today = {name: value for name, value in keys.items() if name not in FLAT_SPELLING}
    if keys.get("use_cuda_graph"):
        today["cuda_graph_config"] = {
            "enable_padding": keys.get("cuda_graph_padding_enabled", False),
            "batch_sizes": _flat_sizes(keys),
        }
    if "kv_cache_dtype" in keys:
        today["kv_cache_config"] = {**(today.get("kv_cache_config") or {}), "dtype": keys["kv_cache_dtype"]}
    transceiver = dict(today.get("cache_transceiver_config") or {})
    if _FLAT_TRANSFER_TOKENS in transceiver:
        transceiver["max_tokens_in_buffer"] = transceiver.pop(_FLAT_TRANSFER_TOKENS)
    if str(transceiver.get("backend", "")).islower():
        transceiver["backend"] = transceiver["backend"].upper()
    if transceiver:
        today["cache_transceiver_config"] = transceiver
    return today
