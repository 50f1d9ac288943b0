"""Hold the settings of a TensorRT-LLM engine, in the key names of today's generation of its YAML.

A key that is None is absent from the YAML: the engine's own default holds. `cuda_graph_config: null` is
TensorRT-LLM's way to say "no CUDA graphs".
Source of names and defaults: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field

from tune.engines.trtllm.key_meanings import MEANINGS
from tune.engines.trtllm.trtllm_groups import (
    CacheTransceiverConfig,
    CapacityPolicy,
    ChunkingPolicy,
    CudaGraphConfig,
    KvCacheConfig,
    SchedulerConfig,
    absent_key,
)
from tune.spec.base import Count, PositiveInt
from tune.spec.engine import BatchingPolicy, ChunkOrder, Engine, KvDtype, Meaning, SettingName

Generation = Literal["flat", "nested_1_0", "nested"]
"""Generation of the engine's YAML: `flat` is that of 1.0.0rc before rc4, `nested_1_0` that of 1.0, which
spells the backend of the cache transceiver in lower case, `nested` is today's."""

_BATCHING: dict[CapacityPolicy, BatchingPolicy] = {
    "GUARANTEED_NO_EVICT": "reserve_answers",
    "MAX_UTILIZATION": "evict_newest",
    "STATIC_BATCH": "whole_batches",
}
_CHUNK_ORDER: dict[ChunkingPolicy, ChunkOrder] = {
    "FIRST_COME_FIRST_SERVED": "first_come",
    "EQUAL_PROGRESS": "equal_progress",
    "FORCE_CHUNK": "first_come",
}


_UNTIMED = {
    "enable_attention_dp": "every rank has a batch and a KV cache of its own",
    "speculative_config": "a decode step makes several tokens",
}
"""Keys that change what a step is, and how. Source: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py."""


class TrtLlmEngine(Engine):
    """Hold the settings of TensorRT-LLM.

    Any other key of the engine's YAML passes through untouched: one at its top in `extra`, one of a group in
    that group.
    """

    KEYS: ClassVar[Mapping[SettingName, str]] = {
        "tensor_parallel": "tensor_parallel_size",
        "context_parallel": "context_parallel_size",
        "pipeline_stages": "pipeline_parallel_size",
        "max_sequences": "max_batch_size",
        "token_budget": "max_num_tokens",
        "max_sequence_tokens": "max_seq_len",
        "graph_batch_sizes": "cuda_graph_config",
    }
    MEANINGS: ClassVar[Mapping[str, Meaning]] = MEANINGS
    GENERATIONS: ClassVar[tuple[str, ...]] = get_args(Generation)

    backend: Literal["pytorch"] | None = "pytorch"
    tensor_parallel_size: PositiveInt
    pipeline_parallel_size: PositiveInt = 1
    context_parallel_size: PositiveInt | None = absent_key()
    max_batch_size: Count
    max_num_tokens: PositiveInt
    max_seq_len: PositiveInt
    disable_overlap_scheduler: bool | None
    enable_chunked_prefill: bool | None = None
    stream_interval: PositiveInt | None = None
    kv_cache_config: KvCacheConfig
    cuda_graph_config: CudaGraphConfig | None
    cache_transceiver_config: CacheTransceiverConfig | None
    scheduler_config: SchedulerConfig | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def context_parallel(self) -> int:
        """Return context_parallel_size; 1 where none is set (llm_args.py)."""
        return self.context_parallel_size or 1

    @property
    def kv_dtype(self) -> KvDtype:
        """Return the dtype of kv_cache_config."""
        return self.kv_cache_config.dtype

    @property
    def loads_weights(self) -> bool:
        """Return whether load_format, among the further keys, is another one than dummy."""
        return str(self.extra.get("load_format", "")).lower() != "dummy"

    @property
    def kv_block_tokens(self) -> int:
        """Return tokens_per_block of kv_cache_config; 32 where none is set (llm_args.py)."""
        return self.kv_cache_config.tokens_per_block or 32

    @property
    def reuses_kv_blocks(self) -> bool:
        """Return enable_block_reuse of kv_cache_config."""
        return self.kv_cache_config.enable_block_reuse

    @property
    def capacity_policy(self) -> CapacityPolicy:
        """Return the capacity scheduler's policy; GUARANTEED_NO_EVICT where none is set (llm_args.py)."""
        named = self.scheduler_config and self.scheduler_config.capacity_scheduler_policy
        return named or "GUARANTEED_NO_EVICT"

    @property
    def chunking_policy(self) -> ChunkingPolicy:
        """Return the context chunking policy; FIRST_COME_FIRST_SERVED where none is set (llm_args.py)."""
        named = self.scheduler_config and self.scheduler_config.context_chunking_policy
        return named or "FIRST_COME_FIRST_SERVED"

    @property
    def batching(self) -> BatchingPolicy:
        """Return the batching policy of the simulator that corresponds to the capacity scheduler's policy."""
        return _BATCHING[self.capacity_policy]

    @property
    def chunks_prompts(self) -> bool:
        """Return whether chunked prefill is on; it is off where nothing is set (llm_args.py)."""
        return self.enable_chunked_prefill is True

    @property
    def chunk_order(self) -> ChunkOrder:
        """Return the order of chunks in a prefill step under the context chunking policy."""
        return _CHUNK_ORDER[self.chunking_policy]

    @property
    def overlaps_host_work(self) -> bool:
        """Return whether the overlap scheduler is on, as it is where nothing is set (llm_args.py)."""
        return not self.disable_overlap_scheduler

    @property
    def tokens_per_message(self) -> int:
        """Return stream_interval; 1 where none is set (llm_args.py)."""
        return self.stream_interval or 1

    @property
    def graph_batch_sizes(self) -> tuple[int, ...]:
        """Return the decode batch sizes, listed or derived by the engine; empty without CUDA graphs."""
        return self.cuda_graph_config.sizes if self.cuda_graph_config else ()

    @property
    def captured_graph_sizes(self) -> tuple[int, ...]:
        """Return the listed sizes up to the largest decode batch; with padding it replaces larger sizes.

        Source: TensorRT-LLM, _filter_cuda_graph_batch_sizes in _torch/pyexecutor/model_engine.py.
        """
        largest = min(self.max_batch_size, self.max_num_tokens)
        sizes = {size for size in self.graph_batch_sizes if size <= largest}
        if self.pads_to_graphs and len(sizes) < len(self.graph_batch_sizes):
            sizes.add(largest)
        return tuple(sorted(sizes))

    @property
    def pads_to_graphs(self) -> bool:
        """Return whether there are CUDA graphs and padding is on."""
        return self.cuda_graph_config is not None and self.cuda_graph_config.enable_padding

    def with_graph_sizes(self, sizes: tuple[int, ...]) -> Self:
        """Return these settings with a cuda_graph_config of `sizes`, or null where `sizes` is empty."""
        before = self.cuda_graph_config or CudaGraphConfig(enable_padding=True)
        graphs = before.model_copy(update={"batch_sizes": sizes, "max_batch_size": None}) if sizes else None
        return self.model_copy(update={"cuda_graph_config": graphs})

    @property
    def expert_parallel(self) -> int:
        """Return moe_expert_parallel_size, or what moe_tensor_parallel_size leaves of TP, else 1.

        Source: TensorRT-LLM, mapping.py.
        """
        ranks = self.tensor_parallel * self.context_parallel
        groups, shards = (self.extra.get(f"moe_{kind}_parallel_size") for kind in ("expert", "tensor"))
        if type(groups) is int and groups > 0:
            return min(groups, ranks)
        return max(ranks // shards, 1) if type(shards) is int and shards > 0 else 1

    @property
    def attends_by_rank(self) -> bool:
        """Return whether attention data parallelism is on: then batch and KV cache are those of one rank."""
        return bool(self.extra.get("enable_attention_dp"))

    @property
    def draft_tokens(self) -> int:
        """Return the tokens that a step checks beside that of each sequence (speculative decoding), else 0.

        MTP's older name for max_draft_len is num_nextn_predict_layers (llm_args.py).
        """
        config = self.extra.get("speculative_config")
        stated = dict(config) if isinstance(config, Mapping) else {}
        drafts = stated.get("max_draft_len", stated.get("num_nextn_predict_layers"))
        return drafts if type(drafts) is int else 0

    @property
    def untimed(self) -> Mapping[str, str]:
        """Return what attention data parallelism and speculative decoding do, where `extra` has them."""
        return {f"extra.{key}": effect for key, effect in _UNTIMED.items() if self.extra.get(key)}

    @property
    def unsimulated(self) -> Mapping[str, str]:
        """Return what speculative decoding does, where it does not say how many tokens it drafts."""
        known = {"extra.enable_attention_dp"} | ({"extra.speculative_config"} if self.draft_tokens else set())
        return {path: effect for path, effect in self.untimed.items() if path not in known}

    @property
    def counted_keys(self) -> frozenset[str]:
        """Return the keys that divide the experts among ranks."""
        return frozenset({"extra.moe_expert_parallel_size", "extra.moe_tensor_parallel_size"})

    @property
    def passed_through(self) -> Mapping[str, Any]:
        """Return the keys without a typed setting by path, and a chunking policy that is not simulated."""
        keys = {f"extra.{key}": value for key, value in self.extra.items()}
        groups = {
            "kv_cache_config": self.kv_cache_config,
            "cuda_graph_config": self.cuda_graph_config,
            "cache_transceiver_config": self.cache_transceiver_config,
            "scheduler_config": self.scheduler_config,
        }
        for name, group in groups.items():
            other = group.other_keys if group is not None else {}
            keys |= {f"{name}.{key}": value for key, value in other.items()}
        if self.chunking_policy == "FORCE_CHUNK":
            keys["scheduler_config.context_chunking_policy"] = self.chunking_policy
        return keys
