"""List the unit and the meaning of every setting of a pool of vLLM workers."""

# One row per setting, so lines are long.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from collections.abc import Mapping

from tune.spec.engine import Meaning

MEANINGS: Mapping[str, Meaning] = {
    "tensor_parallel_size": ("GPUs", "Tensor parallelism (TP) of a worker."),
    "pipeline_parallel_size": ("stages", "Pipeline parallelism (PP) of a worker."),
    "max_num_seqs": ("sequences", "Most sequences in a step."),
    "max_num_batched_tokens": ("tokens", "Most tokens in a step; of a prefill worker the chunk size."),
    "max_model_len": ("tokens", "Longest prompt and answer together."),
    "gpu_memory_utilization": ("fraction", "Share of a GPU's whole memory that a worker may take, weights included."),
    "kv_cache_dtype": ("", "Data type of the KV cache; both pools must agree."),
    "block_size": ("tokens", "Size of a KV cache block; null: the engine's default, 16."),
    "enable_prefix_caching": ("", "Whether blocks of equal prefixes are shared."),
    "enable_chunked_prefill": ("", "Whether a prompt may be split over several steps."),
    "async_scheduling": ("", "Whether the next step is prepared while the GPUs run this one; null: the engine's default, true."),
    "stream_interval": ("tokens", "Tokens in a streamed message; null: the engine's default, 1."),
    "enforce_eager": ("", "Whether steps run without CUDA graphs and without compilation."),
    "cudagraph_capture_sizes": ("sequences", "Batch sizes for which a CUDA graph is captured, in any order; null: the engine derives them from max_num_seqs."),
    "dtype": ("", "Number format of activations, and of weights that are not quantised."),
    "load_format": ("", "How weights are loaded; dummy: random ones in the shape of `model`, so no checkpoint is read."),
    "enable_logging_iteration_details": ("", "Whether each step's requests, tokens and time are a line of the worker's log."),
    "extra": ("", "Any other argument of vLLM by its name, passed through unchanged: extra.seed=1 becomes --seed 1, true and false become --NAME and --no-NAME."),
}
"""Rows by the path below `prefill` or `decode`."""
