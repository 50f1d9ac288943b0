"""Validate the arguments of 1.3 that the tests give, by name and rule as TensorRT-LLM does.

Source of names, types and rules: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py at 1.3.0rc.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CudaGraphConfig(Strict):
    batch_sizes: list[int] | None = None
    max_batch_size: int | None = None
    enable_padding: bool = False

    @model_validator(mode="after")
    def agree(self) -> CudaGraphConfig:
        """Sort the sizes; their largest is the limit, and another limit contradicts them."""
        if self.batch_sizes:
            self.batch_sizes = sorted(self.batch_sizes)
            if self.max_batch_size not in (None, max(self.batch_sizes)):
                raise ValueError("CudaGraphConfig.max_batch_size is incompatible with its batch_sizes")
            self.max_batch_size = max(self.batch_sizes)
        return self


class KvCacheConfig(Strict):
    dtype: str = "auto"
    enable_block_reuse: bool = True
    free_gpu_memory_fraction: float = Field(default=0.9, ge=0, le=1)
    tokens_per_block: int = 32


class CacheTransceiverConfig(Strict):
    backend: Literal["DEFAULT", "UCX", "NIXL", "MOONCAKE", "MPI"] | None = None
    max_tokens_in_buffer: int | None = None


class SchedulerConfig(Strict):
    capacity_scheduler_policy: Literal["MAX_UTILIZATION", "GUARANTEED_NO_EVICT", "STATIC_BATCH"] = (
        "GUARANTEED_NO_EVICT"
    )
    context_chunking_policy: Literal["FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS", "FORCE_CHUNK"] | None = None


class MoeConfig(Strict):
    backend: str = "AUTO"
    load_balancer: str | None = None


class BaseLlmArgs(Strict):
    model: str
    backend: str | None = None
    gpus_per_node: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    context_parallel_size: int = 1
    max_batch_size: int | None = 2048
    max_num_tokens: int | None = 8192
    max_seq_len: int | None = None
    max_beam_width: int | None = 1
    enable_chunked_prefill: bool = False
    trust_remote_code: bool = False
    kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig)
    cache_transceiver_config: CacheTransceiverConfig | None = None
    scheduler_config: SchedulerConfig = Field(default_factory=SchedulerConfig)

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> BaseLlmArgs:
        return cls(**kwargs)


class TorchLlmArgs(BaseLlmArgs):
    cuda_graph_config: CudaGraphConfig | None = Field(default_factory=CudaGraphConfig)
    disable_overlap_scheduler: bool = False
    stream_interval: int = 1
    num_postprocess_workers: int = 0
    print_iter_log: bool = False
    moe_config: MoeConfig = Field(default_factory=MoeConfig)

    @model_validator(mode="after")
    def find_load_balancer(self) -> TorchLlmArgs:
        """Read the file that the load balancer names, as TensorRT-LLM does: FileNotFoundError without it."""
        if self.moe_config.load_balancer:
            Path(self.moe_config.load_balancer).read_text()
        return self


def update_llm_args_with_extra_options(
    llm_args: dict[str, Any], extra_llm_api_options: str
) -> dict[str, Any]:
    return llm_args | yaml.safe_load(Path(extra_llm_api_options).read_text())
