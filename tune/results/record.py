"""`study.json`: the question a study answers, pinned when it starts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tune.spec.load import Slo
from tune.spec.space import Dimension, Search
from tune.spec.typed import NonNegativeFloat, Typed


class StudyRecord(Typed):
    """`base_hash`: the configuration before a point is bound; `cluster_hash`: settings that change results.
    `base` holds both as plain values, so that a difference can be named.

    `command` holds the Hydra overrides that started the study: the same command resumes it. `space` is empty
    for a single trial. `versions` names what ran it; a difference there is no conflict.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: str
    question: str
    place: Literal["sim", "local", "slurm"]
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
    base: dict[str, Any] = Field(default_factory=dict)
    cluster_hash: str
    command: tuple[str, ...]
    versions: dict[str, str]


class Phases(Typed):
    """What an attempt held its GPUs for. The rest of that time, if any, is its beginning and its end.

    `drain_s`: after the end of each run, until no worker held a request of it. `search_s`: idle, while it was
    reckoned which rate to ask next.
    """

    bring_up_s: NonNegativeFloat = 0.0
    warm_up_s: NonNegativeFloat = 0.0
    probes_s: NonNegativeFloat = 0.0
    drain_s: NonNegativeFloat = 0.0
    search_s: NonNegativeFloat = 0.0


class AttemptRecord(Typed):
    """`raw/<attempt>/attempt.json`: how long an attempt held its GPUs. The place that ran it writes it last.

    `error` is None when all probes ran; otherwise what broke, and `cause` says what broke: the "point" (an
    engine rejected its configuration, memory ran out) or the "world" (a node, the network, our own fault).
    Times are ISO 8601 in UTC. `phases` is None where nobody lived to tell.
    """

    started_at: str
    ended_at: str
    held_s: NonNegativeFloat
    error: str | None = None
    cause: Literal["point", "world"] | None = None
    phases: Phases | None = None
