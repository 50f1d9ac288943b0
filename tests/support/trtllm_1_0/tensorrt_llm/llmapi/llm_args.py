"""Validate the flat arguments of mid 2025 that the tests give, under the older name of their class.

Source of names and types: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py at cd2f9fa.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class LlmArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    backend: str | None = None
    gpus_per_node: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_seq_len: int | None = None
    enable_chunked_prefill: bool = False
    use_cuda_graph: bool = False
    cuda_graph_batch_sizes: list[int] | None = None
    cuda_graph_padding_enabled: bool = False
    kv_cache_dtype: str = "auto"
    kv_cache_config: dict[str, Any] = {}
    cache_transceiver_config: dict[str, Any] | None = None
    scheduler_config: dict[str, Any] = {}
    disable_overlap_scheduler: bool = False
    stream_interval: int = 1
    trust_remote_code: bool = False
    print_iter_log: bool = False
    num_postprocess_workers: int = 0
