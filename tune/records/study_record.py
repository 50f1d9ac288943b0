"""`study.json`: the question a study answers, pinned when it starts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tune.spec.base import FrozenModel
from tune.spec.load import Slo
from tune.spec.space import Dimension, Search


class StudyRecord(FrozenModel):
    """`base_hash`: the configuration before a point is bound; `cluster_hash`: settings that change results.
    `base` holds both as plain values, so that a difference can be named.

    `command` holds the Hydra overrides that started the study: the same command resumes it. `space` is empty
    for a single trial. `versions` names what ran it; a difference there is no conflict.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: str
    question: str
    backend: Literal["sim", "local", "slurm"]
    stack: str
    engine: str
    model: str
    hardware: str
    nodes: int
    gpus_per_node: int
    gpus: int
    slo: Slo
    space: dict[str, Dimension]
    fill_decode: bool
    search: Search
    seed: int
    n_trials: int
    parallel: int
    max_gpu_hours: float | None
    baseline: bool
    base_hash: str
    base: dict[str, Any] = Field(default_factory=dict)
    cluster_hash: str
    command: tuple[str, ...]
    versions: dict[str, str]
