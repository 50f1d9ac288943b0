"""Check TensorRT-LLM's settings against the generation of the stack, and the pools against each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tune.engines.trtllm.engine_pools import Pools, yaml_generation
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.spec.findings import Finding
from tune.spec.model import Model
from tune.spec.split import ROLES, Split
from tune.spec.stack import Stack

_CHOOSES_CARRIER = re.compile(r"TRTLLM_USE_\w+_KVCACHE")
"""Variables that choose what DEFAULT is. Source: TensorRT-LLM, cpp/tensorrt_llm/common/envUtils.cpp."""


def check_strategy(stack: Stack, split: Split) -> Iterator[Finding]:
    """Yield an error for a strategy that the workers of `stack` have no flag for."""
    if stack.dynamo == "v1" and split.disaggregation_strategy != "prefill_first":
        yield Finding(
            "error",
            "split.disaggregation_strategy",
            f"{split.disaggregation_strategy} with stack {stack.name}",
            "prefill_first, or stack=dynamo_v0",
            "today's frontend routes by itself and has no setting for which pool answers first",
            "Dynamo: the strategy flag of dynamo.trtllm was removed on 2025-11-04",
        )


def check_generation(stack: Stack, pools: Pools, *, reads_yaml: bool) -> Iterator[Finding]:
    """Yield what the engines of `stack` refuse; `reads_yaml` is False where they are mock engines."""
    yield from _context_only_overlap(stack, pools)
    if reads_yaml and stack.dynamo == "v1" and yaml_generation(stack) == "flat":
        yield Finding(
            "error",
            "stack.engine_yaml",
            "flat with stack dynamo_v1",
            "nested",
            "Dynamo 1.x runs a TensorRT-LLM that rejects the flat keys as unknown",
            "TensorRT-LLM, llm_args.py",
        )
    for role, engine in pools:
        transceiver = engine.cache_transceiver_config
        if yaml_generation(stack) == "flat" and transceiver and transceiver.backend != "DEFAULT":
            yield Finding(
                "error",
                f"{role}.cache_transceiver_config.backend",
                transceiver.backend,
                "DEFAULT, or a stack with nested engine YAML",
                "the flat generation has no key for the backend and would silently ignore one",
                "TensorRT-LLM 1.0.0rc3, llm_args.py",
            )


def _context_only_overlap(stack: Stack, pools: Pools) -> Iterator[Finding]:
    """Yield that an engine which only prefills refuses requests while the overlap scheduler is on."""
    prefill = dict(pools).get("prefill")
    if prefill is None or prefill.disable_overlap_scheduler:
        return
    if stack.dynamo == "v0":
        yield Finding(
            "error",
            "prefill.disable_overlap_scheduler",
            f"{json.dumps(prefill.disable_overlap_scheduler)} with stack {stack.name}",
            "true, or stack=dynamo_v1",
            "a context-only engine of mid 2025 refuses every request while the overlap scheduler is on",
            "TensorRT-LLM, tensorrt_llm/executor of mid 2025; lifted in 1.3.0rc1 (pull request 10755)",
        )
    if stack.generation == "dynamo_v07":
        yield Finding(
            "warning",
            "prefill.disable_overlap_scheduler",
            f"{json.dumps(prefill.disable_overlap_scheduler)} with stack {stack.name}",
            "true before TensorRT-LLM 1.3.0rc1",
            "such a context-only engine refuses every request while the overlap scheduler is on",
            "TensorRT-LLM, notes of release 1.3.0rc1 (pull request 10755)",
        )


def check_dropped_keys(stack: Stack, pools: Pools) -> Iterator[Finding]:
    """Yield the keys that Dynamo's worker takes out before the engine sees them."""
    for role, engine in pools:
        workers = engine.extra.get("num_postprocess_workers")
        if workers and stack.dynamo == "v1":
            yield Finding(
                "warning",
                f"{role}.extra.num_postprocess_workers",
                f"{workers}",
                "none with stack dynamo_v1",
                "Dynamo's worker takes the key out and turns tokens into text by itself: it changes nothing",
                "Dynamo 1.6.1, dynamo/trtllm/workers/llm_worker.py, _strip_postprocess_workers",
            )


def check_transceivers(model: Model, stack: Stack, pools: Pools) -> Iterator[Finding]:
    """Yield where prefill and decode cannot exchange KV caches, and a transceiver that nothing is sent by.

    Parameters
    ----------
    model
        Says which format of the KV cache `auto` follows.
    stack
        Says which transceiver DEFAULT is.
    pools
        The settings of all pools.
    """
    for role, engine in pools:
        if role in ROLES and engine.cache_transceiver_config is None:
            yield Finding(
                "error",
                f"{role}.cache_transceiver_config",
                "null",
                "the settings of a transceiver, such as {backend: DEFAULT}",
                "without one a worker neither sends nor receives a KV cache",
                "TensorRT-LLM, disaggregated serving",
            )
        if role not in ROLES and engine.cache_transceiver_config is not None:
            yield Finding(
                "warning",
                f"{role}.cache_transceiver_config",
                "the settings of a transceiver",
                f"{role}.cache_transceiver_config=null",
                "an aggregated worker sends no KV cache, and its buffers take memory from its own",
                "TensorRT-LLM, CacheTransBufferManager::preAllocBufferSize",
            )
    if len(pools) > 1:
        yield from _pools_agree(model, stack, pools)


def _pools_agree(model: Model, stack: Stack, pools: Pools) -> Iterator[Finding]:
    """Yield where the caches of prefill and decode are not alike, as an error where that is sure."""
    engines = [engine for _, engine in pools]
    formats = [engine.kv_cache_config.dtype for engine in engines]
    meant = [model.kv_dtype if each == "auto" else each for each in formats]
    if formats[0] != formats[1] and (None in meant or meant[0] != meant[1]):
        yield Finding(
            "warning" if None in meant else "error",
            "decode.kv_cache_config.dtype",
            f"{formats[1]}, with {formats[0]} in prefill.kv_cache_config.dtype",
            "the same in both pools" + (", or model.kv_dtype, which auto follows" if None in meant else ""),
            "decode reads the KV blocks that prefill wrote, byte for byte",
            "TensorRT-LLM, disaggregated serving: the cache transceiver copies blocks unconverted",
        )
    transceivers = [engine.cache_transceiver_config for engine in engines]
    backends = [transceiver.backend for transceiver in transceivers if transceiver]
    carriers = [_carrier(stack, engine) for engine in engines if engine.cache_transceiver_config]
    if len(set(backends)) > 1 and (None in carriers or carriers[0] != carriers[1]):
        yield Finding(
            "warning" if None in carriers else "error",
            "decode.cache_transceiver_config.backend",
            f"{backends[1]}, with {backends[0]} in prefill.cache_transceiver_config.backend",
            "the same in both pools",
            "both ends of a KV transfer speak one protocol"
            + (", and which one DEFAULT is depends on version and variables" if None in carriers else ""),
            "TensorRT-LLM, disaggregated serving; batch_manager/cacheTransceiver.cpp for DEFAULT",
        )


def _carrier(stack: Stack, engine: TrtLlmEngine) -> str | None:
    """Return what carries the KV caches of a pool; None where that is not known.

    DEFAULT is NIXL today, unless a variable such as TRTLLM_USE_UCX_KVCACHE chooses another; tune sets that
    one for Dynamo of mid 2025.
    """
    transceiver = engine.cache_transceiver_config
    if transceiver is None or transceiver.backend != "DEFAULT":
        return transceiver.backend if transceiver else None
    chosen = any(_CHOOSES_CARRIER.fullmatch(name) for name in engine.env)
    is_today = stack.dynamo == "v1" and yaml_generation(stack) == "nested"
    return "NIXL" if is_today and not chosen else None
