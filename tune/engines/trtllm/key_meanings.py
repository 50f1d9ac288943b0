"""List the unit and the meaning of every setting of a pool of TensorRT-LLM workers."""

# One row per setting, so lines are long.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from collections.abc import Mapping

from tune.spec.engine import Meaning

MEANINGS: Mapping[str, Meaning] = {
    "backend": ("", "Backend of TensorRT-LLM; null: the engine's default, pytorch."),
    "tensor_parallel_size": ("GPUs", "Tensor parallelism (TP) of a worker."),
    "pipeline_parallel_size": ("stages", "Pipeline parallelism (PP) of a worker."),
    "context_parallel_size": ("GPUs", "Context parallelism (CP) of a worker: its GPUs are TP x CP x PP; null: 1."),
    "max_batch_size": ("sequences", "Most sequences in a step."),
    "max_num_tokens": ("tokens", "Most tokens in a step; of a prefill worker the chunk size."),
    "max_seq_len": ("tokens", "Longest prompt and answer together."),
    "disable_overlap_scheduler": ("", "Whether the overlap scheduler, which hides host work between steps, is off; null: the engine's default, false."),
    "enable_chunked_prefill": ("", "Whether a prompt may be split over several steps; null: the engine's default."),
    "stream_interval": ("tokens", "Tokens in a streamed message; null: the engine's default, 1."),
    "kv_cache_config.dtype": ("", "Data type of the KV cache; both pools must agree."),
    "kv_cache_config.free_gpu_memory_fraction": ("fraction", "Share of the memory left by weights and buffers that the KV cache takes."),
    "kv_cache_config.enable_block_reuse": ("", "Whether blocks of equal prefixes are shared."),
    "kv_cache_config.tokens_per_block": ("tokens", "Size of a KV cache block; null: the engine's default, 32."),
    "cuda_graph_config": ("", "CUDA graphs of decode steps; null: none are captured."),
    "cuda_graph_config.batch_sizes": ("sequences", "Batch sizes for which a graph is captured, in any order; the engine leaves out those that no batch reaches. null: it derives them from max_batch_size."),
    "cuda_graph_config.max_batch_size": ("sequences", "Largest captured batch size, from which the others are derived; null: that of batch_sizes, or 128 without them."),
    "cuda_graph_config.enable_padding": ("", "Whether a batch is padded to the next captured size."),
    "cache_transceiver_config": ("", "KV transfers between the pools; null: none, as of aggregated workers."),
    "cache_transceiver_config.backend": ("", "Transport of the KV cache between the pools."),
    "cache_transceiver_config.max_tokens_in_buffer": ("tokens", "Size of the transfer buffer; null: the engine's default."),
    "cache_transceiver_config.transceiver_runtime": ("", "Runtime of the transfers; null: the engine's default."),
    "scheduler_config": ("", "The engine's scheduler; null: GUARANTEED_NO_EVICT, to which Dynamo 1.x adds a tuning of batch sizes."),
    "scheduler_config.capacity_scheduler_policy": ("", "Admission to the KV cache; null: the engine's default, GUARANTEED_NO_EVICT."),
    "scheduler_config.context_chunking_policy": ("", "How prompts share a step; null: the engine's default, FIRST_COME_FIRST_SERVED."),
    "extra": ("", "Any other key at the top of the engine's YAML, passed through unchanged and not simulated, as is one written in a group."),
}
"""Rows by the path below `prefill` or `decode`."""
