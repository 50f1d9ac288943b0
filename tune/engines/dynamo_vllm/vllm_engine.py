"""Hold the settings of a vLLM engine, under the names of its own arguments.

A setting that is None is absent from the command line: the engine's own default holds.
Source of names and defaults: vLLM 0.23.0, vllm/engine/arg_utils.py and vllm/config/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from tune.engines.dynamo_vllm.argument_meanings import MEANINGS
from tune.spec.base import Count, Fraction, PositiveInt
from tune.spec.engine import BatchingPolicy, ChunkOrder, Engine, KvDtype, Meaning, SettingName

CacheDtype = Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "nvfp4"]

_KV_DTYPES: Mapping[CacheDtype, KvDtype] = {
    "auto": "auto",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "nvfp4": "nvfp4",
}

DEFAULT_BLOCK_TOKENS = 16
"""Tokens of a KV block where none are set. Source: vLLM, CacheConfig.DEFAULT_BLOCK_SIZE; seen with 0.23.0 on
an H200, whose 52,935 blocks held 846,960 tokens."""

LARGEST_DEFAULT_GRAPH = 512
"""Largest batch size with a CUDA graph where none are listed.
Source: vLLM, VllmConfig._set_cudagraph_sizes."""


def _sorted_once(sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sorted(set(sizes)))


class VllmEngine(Engine):
    """Hold the settings of vLLM. `extra` holds any other argument by its name, such as `swap_space: 4`."""

    KEYS: ClassVar[Mapping[SettingName, str]] = {
        "tensor_parallel": "tensor_parallel_size",
        "pipeline_stages": "pipeline_parallel_size",
        "max_sequences": "max_num_seqs",
        "token_budget": "max_num_batched_tokens",
        "max_sequence_tokens": "max_model_len",
        "graph_batch_sizes": "cudagraph_capture_sizes",
    }
    MEANINGS: ClassVar[Mapping[str, Meaning]] = MEANINGS
    GENERATIONS: ClassVar[tuple[str, ...]] = ("arguments",)

    tensor_parallel_size: PositiveInt
    pipeline_parallel_size: PositiveInt = 1
    max_num_seqs: Count
    max_num_batched_tokens: PositiveInt
    max_model_len: PositiveInt
    gpu_memory_utilization: Fraction
    kv_cache_dtype: CacheDtype
    block_size: PositiveInt | None
    enable_prefix_caching: bool
    enable_chunked_prefill: bool
    async_scheduling: bool | None
    stream_interval: PositiveInt | None
    enforce_eager: bool
    cudagraph_capture_sizes: Annotated[tuple[Count, ...] | None, AfterValidator(_sorted_once)]
    dtype: Literal["auto", "bfloat16", "float16"]
    load_format: str
    enable_logging_iteration_details: bool
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def context_parallel(self) -> int:
        """Return 1: context parallelism has no setting here."""
        return 1

    @property
    def expert_parallel(self) -> int:
        """Return the TP with enable_expert_parallel, which gives each rank whole experts; else 1."""
        return self.tensor_parallel if self.extra.get("enable_expert_parallel") else 1

    @property
    def kv_dtype(self) -> KvDtype:
        """Return the number format of the KV cache; the two formats of 8 bits are one."""
        return _KV_DTYPES[self.kv_cache_dtype]

    @property
    def loads_weights(self) -> bool:
        """Return whether load_format is another one than dummy."""
        return self.load_format != "dummy"

    @property
    def kv_block_tokens(self) -> int:
        """Return block_size; 16 where none is set."""
        return self.block_size or DEFAULT_BLOCK_TOKENS

    @property
    def reuses_kv_blocks(self) -> bool:
        """Return enable_prefix_caching."""
        return self.enable_prefix_caching

    @property
    def batching(self) -> BatchingPolicy:
        """Return `evict_newest`: vLLM takes blocks as they are needed and preempts the newest sequence."""
        return "evict_newest"

    @property
    def chunks_prompts(self) -> bool:
        """Return enable_chunked_prefill."""
        return self.enable_chunked_prefill

    @property
    def chunk_order(self) -> ChunkOrder:
        """Return `first_come`, vLLM's scheduling policy where none is named."""
        return "first_come"

    @property
    def overlaps_host_work(self) -> bool:
        """Return async_scheduling, which is on where nothing is set (seen with 0.23.0)."""
        return self.async_scheduling is not False

    @property
    def tokens_per_message(self) -> int:
        """Return stream_interval; 1 where none is set."""
        return self.stream_interval or 1

    @property
    def graph_batch_sizes(self) -> tuple[int, ...]:
        """Return the batch sizes with a CUDA graph, listed or derived by the engine; empty without any."""
        if self.enforce_eager:
            return ()
        if self.cudagraph_capture_sizes is not None:
            return self.cudagraph_capture_sizes
        return _derived_graph_sizes(self.max_num_seqs, self.max_num_batched_tokens)

    @property
    def captured_graph_sizes(self) -> tuple[int, ...]:
        """Return those of `graph_batch_sizes` up to max_num_batched_tokens (_set_cudagraph_sizes)."""
        return tuple(size for size in self.graph_batch_sizes if size <= self.max_num_batched_tokens)

    @property
    def pads_to_graphs(self) -> bool:
        """Return whether there are CUDA graphs: a batch always takes the next size."""
        return bool(self.graph_batch_sizes)

    def with_graph_sizes(self, sizes: tuple[int, ...]) -> Self:
        """Return these settings with CUDA graphs of `sizes`, or with enforce_eager where `sizes` is empty."""
        listed = sizes or None
        return self.model_copy(update={"cudagraph_capture_sizes": listed, "enforce_eager": not sizes})

    @property
    def counted_keys(self) -> frozenset[str]:
        """Return the key that divides the experts among ranks."""
        return frozenset({"extra.enable_expert_parallel"})

    @property
    def untimed(self) -> Mapping[str, str]:
        """Return what data parallelism and speculative decoding do, where `extra` has them."""
        found = {}
        if self.extra.get("data_parallel_size", 1) != 1:
            found["extra.data_parallel_size"] = "every rank has a batch and a KV cache of its own"
        if self.extra.get("speculative_config"):
            found["extra.speculative_config"] = "a decode step makes several tokens"
        return found

    @property
    def passed_through(self) -> Mapping[str, Any]:
        """Return the arguments without a typed setting, by path."""
        return {f"extra.{name}": value for name, value in self.extra.items()}


def _derived_graph_sizes(max_num_seqs: int, max_num_batched_tokens: int) -> tuple[int, ...]:
    """Return the batch sizes that the engine derives where none are listed, in ascending order.

    They are 1, 2, 4, every eighth below 256, then every sixteenth, up to the least of 2 x `max_num_seqs`,
    LARGEST_DEFAULT_GRAPH and `max_num_batched_tokens`, which is a size of its own where it is the least.
    Source: vLLM, VllmConfig._set_cudagraph_sizes.
    """
    largest = min(2 * max_num_seqs, LARGEST_DEFAULT_GRAPH, max_num_batched_tokens)
    sizes = {1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)}
    if max_num_batched_tokens == largest:
        sizes.add(largest)
    return tuple(sorted(size for size in sizes if size <= largest))
