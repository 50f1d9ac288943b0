"""The model that is served, by the numbers that its memory and step times depend on."""

from __future__ import annotations

from tune.spec.base import FrozenModel, PositiveFloat, PositiveInt


class Model(FrozenModel):
    """Architecture and checkpoint. `linear_parameters` counts the weights that every token multiplies."""

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
    checkpoint_bytes: PositiveFloat
