"""Check what `prefill.extra` and `decode.extra` hold: engine keys that have no typed setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tune.spec.trtllm_engine import TrtLlmEngine

Generation = Literal["flat", "nested"]

TYPED_KEYS = frozenset(TrtLlmEngine.model_fields) - {"extra"}

FLAT_SPELLING = frozenset(
    {"kv_cache_dtype", "use_cuda_graph", "cuda_graph_padding_enabled", "cuda_graph_batch_sizes"}
)
"""Names that the flat generation has for typed settings.
Source: TensorRT-LLM 1.0.0rc3, tensorrt_llm/_torch/pyexecutor/config.py."""

FLAT_ONLY_KEYS = FLAT_SPELLING | {
    "cuda_graph_max_batch_size",
    "autotuner_enabled",
    "mixed_sampler",
    "moe_backend",
    "moe_load_balancer",
    "moe_max_num_tokens",
    "torch_compile_enable_userbuffers",
    "torch_compile_enabled",
    "torch_compile_fullgraph",
    "torch_compile_inductor_enabled",
    "torch_compile_piecewise_cuda_graph",
}
"""Top-level keys that today's generation rejects. Source: as FLAT_SPELLING, against today's llm_args.py."""

NESTED_ONLY_KEYS = frozenset(
    {
        "cuda_graph_config",
        "allreduce_strategy",
        "attention_dp_config",
        "enable_autotuner",
        "kv_connector_config",
        "moe_config",
        "sampler_type",
        "sparse_attention_config",
        "torch_compile_config",
    }
)
"""Top-level keys that the flat generation rejects. Source: TensorRT-LLM today, llm_args.py."""


def conflicting_extra_keys(extra: Mapping[str, Any], generation: Generation) -> dict[str, str]:
    """Return why a key of `extra` cannot stand there, by key; empty when all may be passed through."""
    foreign = NESTED_ONLY_KEYS if generation == "flat" else FLAT_ONLY_KEYS
    reasons = {}
    for key in extra:
        if key in TYPED_KEYS:
            reasons[key] = "it has a typed setting of the same name, and the two could disagree"
        elif key in FLAT_SPELLING:
            reasons[key] = "it is the flat spelling of a typed setting, and the two could disagree"
        elif key in foreign:
            reasons[key] = f"the {generation} generation of the engine's YAML rejects it as unknown"
    return reasons
