"""One TensorRT-LLM engine, in the key names of today's generation of its YAML.

A key that is None is absent from the YAML: the engine's own default holds. `cuda_graph_config: null` is
TensorRT-LLM's way to say "no CUDA graphs".
Source of names and defaults: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tune.spec.base import Fraction, FrozenModel, PositiveInt

KV_BLOCK_TOKENS = 32
"""Tokens in a KV cache block. Source: `tokens_per_block` default, llm_args.py."""

CUDA_GRAPH_BYTES = 200e6
"""Upper end of what one captured CUDA graph costs on a GPU. Source: TensorRT-LLM's CUDA graph notes."""

CapacityPolicy = Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]
ChunkingPolicy = Literal["FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS"]
KvDtype = Literal["auto", "fp8", "bfloat16", "float16"]


class KvCacheConfig(FrozenModel):
    dtype: KvDtype = "auto"
    free_gpu_memory_fraction: Fraction = 0.9
    enable_block_reuse: bool = True


class CudaGraphConfig(FrozenModel):
    """CUDA graphs run decode-only batches, padded up to the next captured size when padding is on."""

    batch_sizes: tuple[PositiveInt, ...]
    enable_padding: bool = False


class CacheTransceiverConfig(FrozenModel):
    max_tokens_in_buffer: PositiveInt
    backend: Literal["DEFAULT", "UCX", "NIXL", "MPI", "MOONCAKE"] = "DEFAULT"


class SchedulerConfig(FrozenModel):
    capacity_scheduler_policy: CapacityPolicy | None = None
    context_chunking_policy: ChunkingPolicy | None = None


class Engine(FrozenModel):
    """The settings of every worker of one pool; `extra` is any other engine key, passed through untouched."""

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
    def gpus(self) -> int:
        """GPUs of one worker."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def capacity_policy(self) -> CapacityPolicy:
        """The capacity scheduler's policy; GUARANTEED_NO_EVICT where the YAML says nothing (llm_args.py)."""
        named = self.scheduler_config and self.scheduler_config.capacity_scheduler_policy
        return named or "GUARANTEED_NO_EVICT"

    @property
    def chunking_policy(self) -> ChunkingPolicy:
        """The context chunking policy; FIRST_COME_FIRST_SERVED where the YAML says nothing (llm_args.py)."""
        named = self.scheduler_config and self.scheduler_config.context_chunking_policy
        return named or "FIRST_COME_FIRST_SERVED"

    @property
    def graph_batch_sizes(self) -> tuple[int, ...]:
        """Captured decode batch sizes; empty without CUDA graphs."""
        return self.cuda_graph_config.batch_sizes if self.cuda_graph_config else ()
