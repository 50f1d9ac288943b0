"""Hold the model that is served, by the numbers that its memory and step times depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tune.spec.base import NonNegativeInt, PositiveFloat, PositiveInt, SparseModel

WeightDtype = Literal["nvfp4", "mxfp4", "fp8", "int8", "bfloat16", "float16"]

WEIGHT_BITS: Mapping[WeightDtype, float] = {
    "nvfp4": 4.5,
    "mxfp4": 4.25,
    "fp8": 8.0,
    "int8": 8.0,
    "bfloat16": 16.0,
    "float16": 16.0,
}
"""Bits of a weight with its share of a scale: of 8 bits for 16 weights (NVFP4) or 32 (MXFP4)."""

TIMED_WEIGHT_DTYPE: WeightDtype = "nvfp4"
"""The number format of weights whose step times are known. Source: the kernels that tune/sim's coefficients
are fitted to were measured with NVFP4 weights alone."""

_UNTIMED = {
    "experts": "experts",
    "attention": "multi-head latent attention",
    "sliding_window_tokens": "sliding windows",
    "attention_dtype": "attention in a number format of its own",
}
"""Fields of layers that no kernel was measured with, in words. Source: as for the format of weights."""


class Model(SparseModel):
    """Hold architecture and checkpoint.

    `config` names a checkpoint whose sizes replace it when a configuration is composed; a trial has none.
    `linear_parameters` counts the weights that every token multiplies; with experts those that a token passes
    through. `weight_dtype` is the number format of these weights in the checkpoint. The fields with None are
    unknown or absent: `context_tokens` is the longest sequence that the model takes, `repository` where
    Hugging Face has the checkpoint.

    `experts` is the number of routed experts of a layer, None for a dense model; `expert_ffn_size` is the
    width of one, and `dense_layers` have none. `attention_dtype` is the format of attention where it is
    another than `weight_dtype`, and of MTP layers. `kv_dtype` is the format for which the checkpoint has
    scales of its KV cache. With `attention` mla the cache of a token is one head, half of it as K and half as
    V: `kv_heads` is 1 and `head_size` half of the compressed size. `sliding_layers` see the last
    `sliding_window_tokens` tokens only.
    """

    config: str | None = None
    name: str
    served_name: str
    layers: PositiveInt
    hidden_size: PositiveInt
    attention_heads: PositiveInt
    kv_heads: PositiveInt
    head_size: PositiveInt
    ffn_size: PositiveInt
    vocabulary_size: PositiveInt
    linear_parameters: PositiveFloat
    weight_dtype: WeightDtype
    checkpoint_bytes: PositiveFloat
    context_tokens: PositiveInt | None = None
    experts: PositiveInt | None = None
    experts_per_token: PositiveInt | None = None
    expert_ffn_size: PositiveInt | None = None
    shared_experts: NonNegativeInt | None = None
    dense_layers: NonNegativeInt | None = None
    attention: Literal["gqa", "mla"] | None = None
    sliding_window_tokens: PositiveInt | None = None
    sliding_layers: PositiveInt | None = None
    attention_dtype: WeightDtype | None = None
    kv_dtype: Literal["fp8", "nvfp4"] | None = None
    mtp_layers: PositiveInt | None = None
    repository: Annotated[str | None, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = None

    @property
    def dense_parameters(self) -> int:
        """Return the linear weights of layers of attention with KV heads and one gated feed-forward layer."""
        queries_and_outputs = 2 * self.hidden_size * self.attention_heads * self.head_size
        keys_and_values = 2 * self.hidden_size * self.kv_heads * self.head_size
        return self.layers * (queries_and_outputs + keys_and_values + 3 * self.hidden_size * self.ffn_size)

    @property
    def untimed(self) -> Mapping[str, str]:
        """Return, by field, what the layers have that no step time is known with; empty for a dense model."""
        return {field: what for field, what in _UNTIMED.items() if getattr(self, field) not in (None, "gqa")}

    @property
    def expert_bytes(self) -> float:
        """Return the bytes of all routed experts, with those of MTP layers; 0 where the model says none."""
        if self.experts is None or self.expert_ffn_size is None:
            return 0.0
        layer = self.experts * 3 * self.hidden_size * self.expert_ffn_size / 8
        main = (self.layers - (self.dense_layers or 0)) * WEIGHT_BITS[self.weight_dtype]
        mtp = (self.mtp_layers or 0) * WEIGHT_BITS[self.attention_dtype or self.weight_dtype]
        return layer * (main + mtp)
