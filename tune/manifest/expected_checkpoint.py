"""Define what a plan expects of the checkpoint that its workers load."""

from __future__ import annotations

from tune.spec.base import FrozenModel
from tune.spec.engine import KvDtype
from tune.spec.model import Model


class ExpectedCheckpoint(FrozenModel):
    """Hold where the checkpoint of `model` is, and the number format of the KV cache that is made with it.

    `folder` is its path outside of any container; a `~` in front is the user's home.
    """

    folder: str
    model: Model
    kv_dtype: KvDtype
