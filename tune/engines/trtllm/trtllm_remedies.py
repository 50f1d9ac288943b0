"""Recommend TensorRT-LLM settings against a bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune.engines.base import Remedy
from tune.engines.shared_remedies import shared_recommendations
from tune.engines.trtllm.engine_pools import trtllm_settings
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.records.outcome import Recommendation
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

MEMORY_FRAC = 0.9
"""Share of the free memory that a KV cache may take without risk: TensorRT-LLM's own default
(`free_gpu_memory_fraction`, llm_args.py)."""


def trtllm_recommendations(spec: TrialSpec, remedy: Remedy) -> Iterator[Recommendation]:
    """Yield the settings of TensorRT-LLM that apply `remedy` to `spec`."""
    decode = trtllm_settings(spec.decode)
    if remedy.kind == "fuller_batches" and decode.capacity_policy == "STATIC_BATCH":
        yield Recommendation(text="another capacity_scheduler_policy: STATIC_BATCH fills only an empty batch")
    yield from shared_recommendations(spec, remedy, "cuda_graph_config.batch_sizes", decode.graph_batch_sizes)
    if remedy.kind == "more_kv_cache":
        yield from _more_kv_cache(decode, spec.split.roles)
    if remedy.kind == "faster_transfers":
        yield Recommendation(
            text="a faster way between the pools: the cache transceiver's backend, the network it uses"
        )


def _more_kv_cache(decode: TrtLlmEngine, roles: Sequence[Role]) -> Iterator[Recommendation]:
    cache = decode.kv_cache_config
    if cache.free_gpu_memory_fraction < MEMORY_FRAC:
        yield Recommendation(
            text=f"more of the memory for the {roles[-1]} KV cache",
            overrides=(f"{roles[-1]}.kv_cache_config.free_gpu_memory_fraction={MEMORY_FRAC:g}",),
        )
    if cache.dtype != "fp8":
        yield Recommendation(
            text="an fp8 KV cache" + (" in both pools" if len(roles) > 1 else ""),
            overrides=tuple(f"{role}.kv_cache_config.dtype=fp8" for role in roles),
        )
    if decode.capacity_policy == "MAX_UTILIZATION":
        yield Recommendation(text=f"a smaller {roles[-1]}.max_batch_size, so that no sequence is paused")
