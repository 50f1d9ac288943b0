"""Hold the settings of a TensorRT-LLM engine, in the key names of today's generation of its YAML.

A key that is None is absent from the YAML: the engine's own default holds. `cuda_graph_config: null` is
TensorRT-LLM's way to say "no CUDA graphs".
Source of names and defaults: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from tune.spec.base import Fraction, FrozenModel, PositiveInt
from tune.spec.engine import BatchingPolicy, ChunkOrder, Engine, KvDtype, SettingName

KV_BLOCK_TOKENS = 32
"""Tokens in a KV cache block. Source: `tokens_per_block` default, llm_args.py."""

CapacityPolicy = Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]
ChunkingPolicy = Literal["FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS"]

_BATCHING: dict[CapacityPolicy, BatchingPolicy] = {
    "GUARANTEED_NO_EVICT": "reserve_answers",
    "MAX_UTILIZATION": "evict_newest",
    "STATIC_BATCH": "whole_batches",
}
_CHUNK_ORDER: dict[ChunkingPolicy, ChunkOrder] = {
    "FIRST_COME_FIRST_SERVED": "first_come",
    "EQUAL_PROGRESS": "equal_progress",
}


def _sorted_once(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(sizes)))


class KvCacheConfig(FrozenModel):
    """Hold the settings of a worker's KV cache. `dtype: auto` is the number format of the model."""

    dtype: KvDtype = "auto"
    free_gpu_memory_fraction: Fraction = 0.9
    enable_block_reuse: bool = True


class CudaGraphConfig(FrozenModel):
    """Hold the CUDA graphs of decode-only batches, padded up to the next captured size when padding is on.

    The engine sorts the sizes (llm_args.py); here they are sorted too, so that one set of sizes is one
    configuration.
    """

    batch_sizes: Annotated[tuple[PositiveInt, ...], AfterValidator(_sorted_once)]
    enable_padding: bool = False


class CacheTransceiverConfig(FrozenModel):
    """Hold the settings of KV transfers between the pools."""

    max_tokens_in_buffer: PositiveInt
    backend: Literal["DEFAULT", "UCX", "NIXL", "MPI", "MOONCAKE"] = "DEFAULT"


class SchedulerConfig(FrozenModel):
    """Hold the policies of the batch scheduler; None leaves one to the engine."""

    capacity_scheduler_policy: CapacityPolicy | None = None
    context_chunking_policy: ChunkingPolicy | None = None


class TrtLlmEngine(Engine):
    """Hold the settings of TensorRT-LLM; `extra` is any other engine key, passed through untouched."""

    KEYS: ClassVar[Mapping[SettingName, str]] = {
        "tensor_parallel": "tensor_parallel_size",
        "max_sequences": "max_batch_size",
        "token_budget": "max_num_tokens",
        "max_sequence_tokens": "max_seq_len",
        "graph_batch_sizes": "cuda_graph_config",
    }

    backend: Literal["pytorch"] = "pytorch"
    tensor_parallel_size: PositiveInt
    pipeline_parallel_size: PositiveInt = 1
    max_batch_size: PositiveInt
    max_num_tokens: PositiveInt
    max_seq_len: PositiveInt
    disable_overlap_scheduler: bool
    enable_chunked_prefill: bool | None = None
    stream_interval: PositiveInt | None = None
    kv_cache_config: KvCacheConfig
    cuda_graph_config: CudaGraphConfig | None
    cache_transceiver_config: CacheTransceiverConfig
    scheduler_config: SchedulerConfig | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def tensor_parallel(self) -> int:
        """Return tensor_parallel_size."""
        return self.tensor_parallel_size

    @property
    def pipeline_stages(self) -> int:
        """Return pipeline_parallel_size."""
        return self.pipeline_parallel_size

    @property
    def max_sequences(self) -> int:
        """Return max_batch_size."""
        return self.max_batch_size

    @property
    def token_budget(self) -> int:
        """Return max_num_tokens."""
        return self.max_num_tokens

    @property
    def max_sequence_tokens(self) -> int:
        """Return max_seq_len."""
        return self.max_seq_len

    @property
    def kv_dtype(self) -> KvDtype:
        """Return the dtype of kv_cache_config."""
        return self.kv_cache_config.dtype

    @property
    def kv_block_tokens(self) -> int:
        """Return the tokens of a KV cache block: TensorRT-LLM's default."""
        return KV_BLOCK_TOKENS

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
        """Return whether the overlap scheduler is on."""
        return not self.disable_overlap_scheduler

    @property
    def tokens_per_message(self) -> int:
        """Return stream_interval; 1 where none is set (llm_args.py)."""
        return self.stream_interval or 1

    @property
    def graph_batch_sizes(self) -> tuple[int, ...]:
        """Return the listed decode batch sizes; empty without CUDA graphs."""
        return self.cuda_graph_config.batch_sizes if self.cuda_graph_config else ()

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
        padding = self.cuda_graph_config is None or self.cuda_graph_config.enable_padding
        graphs = CudaGraphConfig(batch_sizes=sizes, enable_padding=padding) if sizes else None
        return self.model_copy(update={"cuda_graph_config": graphs})

    @property
    def passed_through(self) -> Mapping[str, Any]:
        """Return `extra`."""
        return self.extra
