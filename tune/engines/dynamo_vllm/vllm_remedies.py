"""Recommend vLLM settings against a bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune.engines.base import Remedy
from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_pools import vllm_settings
from tune.engines.shared_remedies import shared_recommendations
from tune.records.outcome import Recommendation
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

MEMORY_FRAC = 0.92
"""Share of a GPU's memory that a worker may take without risk: vLLM's own default (CacheConfig)."""


def vllm_recommendations(spec: TrialSpec, remedy: Remedy) -> Iterator[Recommendation]:
    """Yield the settings of vLLM that apply `remedy` to `spec`."""
    decode = vllm_settings(spec.decode)
    listed = decode.cudagraph_capture_sizes or ()
    yield from shared_recommendations(spec, remedy, "cudagraph_capture_sizes", listed)
    if remedy.kind == "more_kv_cache":
        yield from _more_kv_cache(decode, spec.split.roles)
    if remedy.kind == "faster_transfers":
        yield Recommendation(text="a faster way between the pools: UCX_TLS, the network that NIXL uses")


def _more_kv_cache(decode: VllmEngine, roles: Sequence[Role]) -> Iterator[Recommendation]:
    if decode.gpu_memory_utilization < MEMORY_FRAC:
        yield Recommendation(
            text=f"more of the memory for the {roles[-1]} workers",
            overrides=(f"{roles[-1]}.gpu_memory_utilization={MEMORY_FRAC:g}",),
        )
    if decode.kv_dtype != "fp8":
        yield Recommendation(
            text="an fp8 KV cache" + (" in both pools" if len(roles) > 1 else ""),
            overrides=tuple(f"{role}.kv_cache_dtype=fp8" for role in roles),
        )
