"""Hold the model that is served, by the numbers that its memory and step times depend on."""

from __future__ import annotations

from typing import Literal

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
    `linear_parameters` counts those that a token passes through.
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
