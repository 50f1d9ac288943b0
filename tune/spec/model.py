"""Hold the model that is served, by the numbers that its memory and step times depend on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tune.spec.base import PositiveFloat, PositiveInt, SparseModel

WeightDtype = Literal["nvfp4", "mxfp4", "fp8", "int8", "bfloat16", "float16"]

TIMED_WEIGHT_DTYPE: WeightDtype = "nvfp4"
"""The number format of weights whose step times are known. Source: the kernels that tune/sim's coefficients
are fitted to were measured with NVFP4 weights alone."""


class Model(SparseModel):
    """Hold architecture and checkpoint.

    `linear_parameters` counts the weights that every token multiplies. `weight_dtype` is the number format of
    these weights in the checkpoint. `context_tokens` is the longest sequence that the model takes, None where
    nobody stated it. `experts` is the number of routed experts of a layer, None for a dense model; then
    `linear_parameters` counts those that a token passes through. `repository` is where Hugging Face has the
    checkpoint, None where nobody stated it.
    """

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
    repository: Annotated[str | None, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = None

    @property
    def dense_parameters(self) -> int:
        """Return the linear weights of layers of attention with KV heads and one gated feed-forward layer."""
        queries_and_outputs = 2 * self.hidden_size * self.attention_heads * self.head_size
        keys_and_values = 2 * self.hidden_size * self.kv_heads * self.head_size
        return self.layers * (queries_and_outputs + keys_and_values + 3 * self.hidden_size * self.ffn_size)
