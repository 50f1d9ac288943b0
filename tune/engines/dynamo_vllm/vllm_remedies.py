"""Recommend vLLM settings against a bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

from tune.engines.base import Remedy
from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_pools import vllm_settings
from tune.records.outcome import Recommendation
from tune.spec.trial import TrialSpec

MEMORY_FRAC = 0.92
"""Share of a GPU's memory that a worker may take without risk: vLLM's own default (CacheConfig)."""


def vllm_recommendations(spec: TrialSpec, remedy: Remedy) -> Iterator[Recommendation]:
    """Yield the settings of vLLM that apply `remedy` to `spec`."""
    decode = vllm_settings(spec.decode)
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
            sizes = decode.captured_graph_sizes
            if remedy.batch is not None and (not sizes or remedy.batch > max(sizes)):
                yield Recommendation(text=f"CUDA graphs for decode batches up to {remedy.batch:.0f}")
        case "more_kv_cache":
            yield from _more_kv_cache(decode)
        case "faster_transfers":
            yield Recommendation(text="a faster way between the pools: UCX_TLS, the network that NIXL uses")


def _larger_chunks(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield chunks of twice the tokens, but no more than the longest prompt has."""
    engine, longest = vllm_settings(spec.prefill), spec.load.dataset.longest_prompt_tokens
    larger = min(2 * engine.max_num_batched_tokens, longest)
    if engine.enable_chunked_prefill and engine.max_num_batched_tokens < larger:
        yield Recommendation(
            text="larger chunks, as every step reads the weights again",
            overrides=(f"prefill.max_num_batched_tokens={larger}",),
        )


def _wider_batch(decode: VllmEngine, batch: int) -> Recommendation:
    """Return the settings for up to `batch` sequences, with a CUDA graph for them where sizes are listed."""
    overrides = [f"decode.max_num_seqs={batch}"]
    if decode.max_num_batched_tokens < batch:
        overrides.append(f"decode.max_num_batched_tokens={batch}")
    if decode.cudagraph_capture_sizes:
        sizes = [size for size in decode.cudagraph_capture_sizes if size < batch]
        listed = ",".join(str(size) for size in [*sizes, batch])
        overrides.append(f"decode.cudagraph_capture_sizes=[{listed}]")
    return Recommendation(text="a wider decode batch", overrides=tuple(overrides))


def _more_kv_cache(decode: VllmEngine) -> Iterator[Recommendation]:
    if decode.gpu_memory_utilization < MEMORY_FRAC:
        yield Recommendation(
            text="more of the memory for the decode workers",
            overrides=(f"decode.gpu_memory_utilization={MEMORY_FRAC:g}",),
        )
    if decode.kv_dtype != "fp8":
        yield Recommendation(
            text="an fp8 KV cache in both pools",
            overrides=("prefill.kv_cache_dtype=fp8", "decode.kv_cache_dtype=fp8"),
        )
