"""Recommend TensorRT-LLM settings against a bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

from tune.engines.base import Remedy
from tune.engines.trtllm.engine_pools import trtllm_settings
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.records.outcome import Recommendation
from tune.spec.trial import TrialSpec

MEMORY_FRAC = 0.9
"""Share of the free memory that a KV cache may take without risk: TensorRT-LLM's own default
(`free_gpu_memory_fraction`, llm_args.py)."""


def trtllm_recommendations(spec: TrialSpec, remedy: Remedy) -> Iterator[Recommendation]:
    """Yield the settings of TensorRT-LLM that apply `remedy` to `spec`."""
    decode = trtllm_settings(spec.decode)
    match remedy.kind:
        case "larger_worker":
            yield Recommendation(
                text=f"more GPUs a {remedy.role} worker ({remedy.role}.tensor_parallel_size)"
            )
        case "larger_chunks":
            yield from _larger_chunks(spec)
        case "wider_batch":
            yield _wider_batch(decode, int(remedy.batch or 0))
        case "fuller_batches":
            yield from _fuller_batches(decode, remedy.batch)
        case "more_kv_cache":
            yield from _more_kv_cache(decode)
        case "faster_transfers":
            yield Recommendation(
                text="a faster way between the pools: the cache transceiver's backend, the network it uses"
            )


def _larger_chunks(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield chunks of twice the tokens, but no more than the longest prompt has, in whole KV blocks."""
    engine, longest = trtllm_settings(spec.prefill), spec.load.dataset.longest_prompt_tokens
    block = engine.kv_block_tokens
    larger = min(2 * engine.max_num_tokens, -(-longest // block) * block)
    if engine.enable_chunked_prefill and engine.max_num_tokens < larger:
        yield Recommendation(
            text="larger chunks, as every step reads the weights again",
            overrides=(f"prefill.max_num_tokens={larger}",),
        )


def _wider_batch(decode: TrtLlmEngine, batch: int) -> Recommendation:
    """Return the settings for up to `batch` sequences, with a CUDA graph for them where there are graphs."""
    overrides = [f"decode.max_batch_size={batch}"]
    if decode.max_num_tokens < batch:
        overrides.append(f"decode.max_num_tokens={batch}")
    if decode.graph_batch_sizes:
        sizes = [size for size in decode.graph_batch_sizes if size < batch]
        listed = ",".join(str(size) for size in [*sizes, batch])
        overrides.append(f"decode.cuda_graph_config.batch_sizes=[{listed}]")
    return Recommendation(text="a wider decode batch", overrides=tuple(overrides))


def _fuller_batches(decode: TrtLlmEngine, batch: float | None) -> Iterator[Recommendation]:
    if decode.capacity_policy == "STATIC_BATCH":
        yield Recommendation(text="another capacity_scheduler_policy: STATIC_BATCH fills only an empty batch")
    sizes = decode.captured_graph_sizes
    if batch is not None and (not sizes or batch > max(sizes)):
        yield Recommendation(text=f"CUDA graphs for decode batches up to {batch:.0f}")


def _more_kv_cache(decode: TrtLlmEngine) -> Iterator[Recommendation]:
    cache = decode.kv_cache_config
    if cache.free_gpu_memory_fraction < MEMORY_FRAC:
        yield Recommendation(
            text="more of the memory for the decode KV cache",
            overrides=(f"decode.kv_cache_config.free_gpu_memory_fraction={MEMORY_FRAC:g}",),
        )
    if cache.dtype != "fp8":
        yield Recommendation(
            text="an fp8 KV cache in both pools",
            overrides=("prefill.kv_cache_config.dtype=fp8", "decode.kv_cache_config.dtype=fp8"),
        )
    if decode.capacity_policy == "MAX_UTILIZATION":
        yield Recommendation(text="a smaller decode.max_batch_size, so that no sequence is paused")
