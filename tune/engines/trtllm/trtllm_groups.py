"""Hold the groups of TensorRT-LLM's YAML: typed keys, and any other key as the user wrote it.

Source of names, defaults and derived values: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py (0004396).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from tune.spec.base import Count, Fraction, FrozenModel, PositiveInt
from tune.spec.engine import KvDtype

CapacityPolicy = Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]
ChunkingPolicy = Literal["FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS", "FORCE_CHUNK"]

LARGEST_GRAPH_BY_DEFAULT = 128
"""Largest CUDA graph where neither `batch_sizes` nor `max_batch_size` is set."""


def absent_key() -> Any:
    """Return a field that is None by default, and then absent from records, identity and engine YAML."""
    return Field(default=None, exclude_if=lambda value: value is None)


def _sorted_once(sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sorted(set(sizes)))


class EngineGroup(FrozenModel):
    """Hold a group of the engine's YAML; a key without a typed setting is kept as it was written."""

    model_config = ConfigDict(extra="allow")

    @property
    def other_keys(self) -> dict[str, Any]:
        """Return the keys without a typed setting."""
        return dict(self.model_extra or {})


class KvCacheConfig(EngineGroup):
    """Hold the settings of a worker's KV cache. `dtype: auto` is the number format of the model."""

    dtype: KvDtype = "auto"
    free_gpu_memory_fraction: Fraction = 0.9
    enable_block_reuse: bool = True
    tokens_per_block: PositiveInt | None = absent_key()


class CudaGraphConfig(EngineGroup):
    """Hold the CUDA graphs of decode-only batches, padded up to the next captured size when padding is on.

    The engine sorts `batch_sizes`; here they are sorted too, so that one set of sizes is one configuration.
    Without them the engine derives the sizes from `max_batch_size`. The flat generation would derive others,
    so it is given these as a list.
    """

    batch_sizes: Annotated[tuple[Count, ...] | None, AfterValidator(_sorted_once)] = absent_key()
    max_batch_size: Count | None = absent_key()
    enable_padding: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return `batch_sizes`, or the sizes that the engine derives where there are none."""
        if self.batch_sizes:
            return self.batch_sizes
        return derived_graph_sizes(self.max_batch_size or LARGEST_GRAPH_BY_DEFAULT, self.enable_padding)


class CacheTransceiverConfig(EngineGroup):
    """Hold the settings of KV transfers between the pools."""

    max_tokens_in_buffer: PositiveInt | None = absent_key()
    backend: Literal["DEFAULT", "UCX", "NIXL", "MPI", "MOONCAKE"] = "DEFAULT"
    transceiver_runtime: Literal["CPP", "PYTHON", "auto"] | None = absent_key()


class SchedulerConfig(EngineGroup):
    """Hold the policies of the batch scheduler; None leaves one to the engine."""

    capacity_scheduler_policy: CapacityPolicy | None = None
    context_chunking_policy: ChunkingPolicy | None = None


def derived_graph_sizes(largest: int, enable_padding: bool) -> tuple[int, ...]:
    """Return the batch sizes that the engine derives from the largest one, in ascending order.

    With padding: 1, 2, 4, every eighth to 128, then every 64th. Without: all to 32, then powers of two. The
    largest one is always among them.
    Source: _generate_cuda_graph_batch_sizes, llm_args.py.
    """
    if enable_padding:
        sizes = {1, 2, 4, *range(8, 129, 8), *range(192, largest + 1, 64)}
    else:
        sizes = {*range(1, 33), 64, 128, *(2**k for k in range(8, math.ceil(math.log2(largest))))}
    return tuple(sorted({size for size in sizes if size <= largest} | {largest}))


def flat_graph_sizes(largest: int, enable_padding: bool) -> tuple[int, ...]:
    """Return the batch sizes that the flat generation derives from the largest one, in ascending order.

    Up to 128 they are those of `derived_graph_sizes`. Beyond, with padding or without, they are the powers of
    two up to half of the largest one, and the largest one itself.
    Source: TensorRT-LLM cd2f9fa (1.0.0rc), _generate_cuda_graph_batch_sizes, llm_args.py.
    """
    upper = {2**k for k in range(8, largest.bit_length() - 1)}
    return tuple(sorted({*derived_graph_sizes(min(largest, 128), enable_padding), *upper, largest}))
