"""Describe an engine's settings by what memory, batching and step times depend on, whatever the engine is.

Neutral code reads an engine through these properties only. The settings themselves, under the key names of
their engine, are in the engine's package, and tune/spec/engine_table.py says where.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import model_validator

from tune.spec.environment import WithEnvironment, require_no_secret_keys

KvDtype = Literal["auto", "fp8", "bfloat16", "float16", "float32", "nvfp4", "fp8_ds_mla"]

BatchingPolicy = Literal["reserve_answers", "evict_newest", "whole_batches"]
"""When a sequence joins a running batch. `reserve_answers`: once the KV cache has room for its prompt and its
longest answer. `evict_newest`: once there is room for its next step; when the cache is full, the newest
sequence is evicted and computed again later. `whole_batches`: once the batch before has ended."""

ChunkOrder = Literal["first_come", "equal_progress"]
"""How a prefill step divides its token budget: to prompts in order of arrival, or in equal shares."""

Meaning = tuple[str, str]
"""Unit ("" for a setting without one) and meaning of a setting."""

SettingName = Literal[
    "tensor_parallel",
    "context_parallel",
    "pipeline_stages",
    "max_sequences",
    "token_budget",
    "max_sequence_tokens",
    "graph_batch_sizes",
]


class Engine(WithEnvironment):
    """Hold the settings of every worker of one pool.

    Every engine has a subclass with fields of its own, named as its users know them. `KEYS` maps a neutral
    property to the field that sets it. `MEANINGS` holds unit and meaning of every field by its path.
    `GENERATIONS` names the generations of the engine's settings file, of which `stack.engine_yaml` is one.
    `env` reaches every worker of the pool. A property that is not abstract is that of an engine without the
    feature: tensor parallelism alone, no CUDA graphs, no reuse of KV blocks.
    """

    KEYS: ClassVar[Mapping[SettingName, str]]
    MEANINGS: ClassVar[Mapping[str, Meaning]]
    GENERATIONS: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        """Return these settings unless a key outside `env` holds what looks like a secret."""
        require_no_secret_keys({name: value for name, value in self if name != "env"})
        return self

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of one worker."""
        return self.tensor_parallel * self.context_parallel * self.pipeline_stages

    def _setting(self, name: SettingName) -> int:
        """Return the value of the field that sets the property `name`."""
        return cast("int", getattr(self, self.KEYS[name]))

    @property
    def tensor_parallel(self) -> int:
        """Return the number of GPUs that share every layer."""
        return self._setting("tensor_parallel")

    @property
    def pipeline_stages(self) -> int:
        """Return the number of stages that the layers are divided into."""
        return self._setting("pipeline_stages") if "pipeline_stages" in self.KEYS else 1

    @property
    def context_parallel(self) -> int:
        """Return the number of groups of GPUs that the tokens of a sequence are divided over."""
        return 1

    @property
    def expert_parallel(self) -> int:
        """Return the number of groups of ranks that the experts of a layer are divided over."""
        return 1

    @property
    def attends_by_rank(self) -> bool:
        """Return whether attention data parallelism is on: each rank has batch and KV cache of its own."""
        return False

    @property
    def attention_ranks(self) -> int:
        """Return the parts of a worker that have a batch and a KV cache each: 1 without attention DP."""
        return self.tensor_parallel if self.attends_by_rank else 1

    @property
    def draft_tokens(self) -> int:
        """Return the tokens that a step checks beside that of each sequence: 0 without speculation."""
        return 0

    @property
    def max_sequences(self) -> int:
        """Return the most sequences that a worker runs at once; each rank of its own with attention DP."""
        return self._setting("max_sequences")

    @property
    def token_budget(self) -> int:
        """Return the most new tokens of one step; of each rank with attention DP."""
        return self._setting("token_budget")

    @property
    def max_sequence_tokens(self) -> int:
        """Return the most tokens of a prompt and its answer together."""
        return self._setting("max_sequence_tokens")

    @property
    @abstractmethod
    def kv_dtype(self) -> KvDtype:
        """Return the number format of the KV cache."""

    @property
    @abstractmethod
    def kv_block_tokens(self) -> int:
        """Return the number of tokens in a block of the KV cache."""

    @property
    def loads_weights(self) -> bool:
        """Return whether workers read the weights of a checkpoint; some engines can make random ones."""
        return True

    @property
    def reuses_kv_blocks(self) -> bool:
        """Return whether prompts that begin alike share blocks of the KV cache."""
        return False

    @property
    @abstractmethod
    def batching(self) -> BatchingPolicy:
        """Return when a sequence joins a running batch."""

    @property
    @abstractmethod
    def chunks_prompts(self) -> bool:
        """Return whether a prompt may take several steps."""

    @property
    def chunk_order(self) -> ChunkOrder:
        """Return how a prefill step divides its token budget among prompts."""
        return "first_come"

    @property
    @abstractmethod
    def overlaps_host_work(self) -> bool:
        """Return whether the host prepares the next step while the GPUs run this one."""

    @property
    def tokens_per_message(self) -> int:
        """Return how many tokens a worker streams in one message."""
        return 1

    @property
    def graph_batch_sizes(self) -> tuple[int, ...]:
        """Return the decode batch sizes for which a CUDA graph is asked; empty without CUDA graphs."""
        return ()

    @property
    def captured_graph_sizes(self) -> tuple[int, ...]:
        """Return those of `graph_batch_sizes` that the engine captures, in ascending order.

        A size that no batch of the engine reaches is left out, or replaced by the largest batch.
        """
        return self.graph_batch_sizes

    @property
    def pads_to_graphs(self) -> bool:
        """Return whether a batch is padded up to the next size with a CUDA graph."""
        return bool(self.graph_batch_sizes)

    def with_graph_sizes(self, sizes: tuple[int, ...]) -> Self:
        """Return these settings with CUDA graphs of `sizes`, or with none where `sizes` is empty.

        Padding stays as it is; it is on where there were no graphs before.
        """
        return self.model_copy(update={self.KEYS["graph_batch_sizes"]: sizes})

    @property
    def untimed(self) -> Mapping[str, str]:
        """Return, by path, what keys do with which no step time is known; empty where none is set."""
        return {}

    @property
    def unsimulated(self) -> Mapping[str, str]:
        """Return those of `untimed` that change more than step times, so that no table of them suffices."""
        return self.untimed

    @property
    def counted_keys(self) -> frozenset[str]:
        """Return the paths of `passed_through` that the memory and the shape of a worker follow."""
        return frozenset()

    @property
    def passed_through(self) -> Mapping[str, Any]:
        """Return the keys that reach the engine as they are, without a typed setting here."""
        return {}
