"""`study.json`: the question a study answers, pinned when it starts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tune.spec.load import Slo
from tune.spec.space import Dimension, Search
from tune.spec.typed import Typed


class StudyRecord(Typed):
    """`base_hash`: the configuration before a point is bound; `cluster_hash`: settings that change results.

    `command` holds the Hydra overrides that started the study: the same command resumes it. `space` is empty
    for a single trial. `versions` names what ran it; a difference there is no conflict.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: str
    question: str
    place: Literal["sim", "slurm"]
    stack: str
    model: str
    hardware: str
    nodes: int
    gpus_per_node: int
    gpus: int
    slo: Slo
    space: dict[str, Dimension]
    rest_to_decode: bool
    search: Search
    seed: int
    n_trials: int
    parallel: int
    max_gpu_hours: float | None
    incumbent: bool
    base_hash: str
    cluster_hash: str
    command: tuple[str, ...]
    versions: dict[str, str]
