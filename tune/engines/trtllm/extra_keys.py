"""Check the engine keys that have no typed setting: those of `extra`, and those below the typed groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune.engines.trtllm.known_keys import FLAT_KEYS, KNOWN_KEYS
from tune.engines.trtllm.trtllm_engine import Generation, TrtLlmEngine
from tune.engines.trtllm.trtllm_groups import (
    CacheTransceiverConfig,
    CudaGraphConfig,
    EngineGroup,
    KvCacheConfig,
    SchedulerConfig,
)

TYPED_KEYS = frozenset(TrtLlmEngine.model_fields) - {"extra", "env"}

FLAT_SPELLING = frozenset(
    {
        "kv_cache_dtype",
        "use_cuda_graph",
        "cuda_graph_padding_enabled",
        "cuda_graph_batch_sizes",
        "cuda_graph_max_batch_size",
    }
)
"""Names that the flat generation has for typed settings.
Source: TensorRT-LLM cd2f9fa (1.0.0rc), TorchLlmArgs in tensorrt_llm/llmapi/llm_args.py."""

FLAT_ONLY_KEYS = FLAT_SPELLING | {
    "autotuner_enabled",
    "enable_trtllm_sampler",
    "mixed_sampler",
    "moe_backend",
    "moe_load_balancer",
    "moe_max_num_tokens",
}
"""Top-level keys that today's generation rejects. Source: as FLAT_SPELLING, against today's llm_args.py."""

NESTED_ONLY_KEYS = KNOWN_KEYS[""] - FLAT_KEYS
"""Today's top-level keys that the flat generation rejects."""

INTERNAL_KEYS = frozenset(
    {
        "torch_compile_enable_userbuffers",
        "torch_compile_enabled",
        "torch_compile_fullgraph",
        "torch_compile_inductor_enabled",
        "torch_compile_piecewise_cuda_graph",
    }
)
"""Names of TensorRT-LLM's own PyTorchConfig that the YAML of no generation has; it has torch_compile_config.
Source: _torch/pyexecutor/config.py (1.0.0rc), against llm_args.py."""

FLAT_GROUP_KEYS: Mapping[str, frozenset[str]] = {
    "kv_cache_config": frozenset(
        {
            "copy_on_partial_reuse",
            "cross_kv_cache_fraction",
            "enable_partial_reuse",
            "event_buffer_max_size",
            "host_cache_size",
            "max_attention_window",
            "max_tokens",
            "onboard_blocks",
            "secondary_offload_min_priority",
            "sink_token_length",
            "use_uvm",
        }
    ),
    "scheduler_config": frozenset({"dynamic_batch_config"}),
    "cuda_graph_config": frozenset(),
    "cache_transceiver_config": frozenset(),
    "extra.attention_dp_config": frozenset({"batching_wait_iters", "enable_balance", "timeout_iters"}),
    "extra.torch_compile_config": frozenset(
        {"enable_fullgraph", "enable_inductor", "enable_piecewise_cuda_graph", "enable_userbuffers"}
    ),
}
"""Keys without a typed setting that the groups of the flat generation have; it ignores any other in silence.
Source: TensorRT-LLM cd2f9fa (1.0.0rc), the classes of these groups in tensorrt_llm/llmapi/llm_args.py."""

_TYPED_GROUPS: Mapping[str, type[EngineGroup]] = {
    "kv_cache_config": KvCacheConfig,
    "scheduler_config": SchedulerConfig,
    "cuda_graph_config": CudaGraphConfig,
    "cache_transceiver_config": CacheTransceiverConfig,
}

Conflicts = dict[str, tuple[Any, str]]
"""What is found and why it cannot stand there, by the path of the key below the pool."""


def keys_beside(path: str) -> frozenset[str]:
    """Return the keys that the flat generation has in the group of `path`; none elsewhere."""
    group = path.rpartition(".")[0]
    typed = frozenset(_TYPED_GROUPS[group].model_fields) if group in _TYPED_GROUPS else frozenset()
    return FLAT_GROUP_KEYS.get(group, frozenset()) | typed


def conflicting_keys(engine: TrtLlmEngine, generation: Generation) -> Conflicts:
    """Return the keys of `engine` that cannot be passed through; empty when all may be."""
    return _of_extra(engine.extra, generation) | (_of_flat_groups(engine) if generation == "flat" else {})


def _of_extra(extra: Mapping[str, Any], generation: Generation) -> Conflicts:
    foreign = INTERNAL_KEYS | (NESTED_ONLY_KEYS if generation == "flat" else FLAT_ONLY_KEYS)
    conflicts: Conflicts = {}
    for key, value in extra.items():
        if key in TYPED_KEYS:
            reason = "it has a typed setting of the same name, and the two could disagree"
        elif key in FLAT_SPELLING:
            reason = "it is the flat spelling of a typed setting, and the two could disagree"
        elif key in foreign:
            reason = f"the {generation} generation of the engine's YAML rejects it as unknown"
        else:
            continue
        conflicts[f"extra.{key}"] = value, reason
    return conflicts


def _of_flat_groups(engine: TrtLlmEngine) -> Conflicts:
    """Return the keys of today's groups that the flat generation would ignore without a word.

    A chunking policy is passed through only where it is FORCE_CHUNK, which the flat generation refuses.
    """
    ignored = "the flat generation has no such key and ignores it in silence"
    transceiver = engine.cache_transceiver_config
    later: dict[str, Any] = {
        "kv_cache_config.tokens_per_block": engine.kv_cache_config.tokens_per_block,
        "cache_transceiver_config.transceiver_runtime": transceiver and transceiver.transceiver_runtime,
    }
    found = {path: (value, ignored) for path, value in later.items() if value is not None}
    keys = dict(engine.passed_through)
    for group, value in engine.extra.items():
        if isinstance(value, Mapping):
            keys |= {f"extra.{group}.{key}": each for key, each in value.items()}
    for path, value in keys.items():
        group, _, key = path.rpartition(".")
        if path == "scheduler_config.context_chunking_policy":
            found[path] = value, "the flat generation has no such policy and refuses it"
        elif group in FLAT_GROUP_KEYS and key not in FLAT_GROUP_KEYS[group]:
            found[path] = value, ignored
    return found
