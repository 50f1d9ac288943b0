"""Provide settings of an engine under key names that no engine of tune has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tune.spec.engine import Engine, SettingName


class OtherEngine(Engine):
    """Hold the settings of an engine under names that TensorRT-LLM does not have."""

    KEYS: ClassVar[Mapping[SettingName, str]] = {
        "tensor_parallel": "ranks",
        "max_sequences": "max_num_seqs",
        "token_budget": "max_num_batched_tokens",
        "max_sequence_tokens": "max_model_len",
        "graph_batch_sizes": "graphs",
    }
    ranks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    graphs: tuple[int, ...] = ()
    prefill_in_chunks: bool = True
    is_async: bool = True

    tensor_parallel = property(lambda self: self.ranks)
    pipeline_stages = property(lambda self: 1)
    context_parallel = property(lambda self: 1)
    max_sequences = property(lambda self: self.max_num_seqs)
    token_budget = property(lambda self: self.max_num_batched_tokens)
    max_sequence_tokens = property(lambda self: self.max_model_len)
    kv_dtype = property(lambda self: "fp8")
    kv_block_tokens = property(lambda self: 32)
    reuses_kv_blocks = property(lambda self: False)
    batching = property(lambda self: "reserve_answers")
    chunks_prompts = property(lambda self: self.prefill_in_chunks)
    chunk_order = property(lambda self: "first_come")
    overlaps_host_work = property(lambda self: self.is_async)
    tokens_per_message = property(lambda self: 1)
    graph_batch_sizes = property(lambda self: self.graphs)
    captured_graph_sizes = property(lambda self: self.graphs)
    pads_to_graphs = property(lambda self: bool(self.graphs))
    passed_through = property(lambda self: {})

    def with_graph_sizes(self, sizes: tuple[int, ...]) -> OtherEngine:
        return self.model_copy(update={"graphs": sizes})
