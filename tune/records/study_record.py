"""Define `study.json`: the question that a study answers, pinned when it starts."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from tune.records.study_end import StudyEnd
from tune.spec.backend_kinds import BackendName
from tune.spec.base import FrozenModel
from tune.spec.bind import Point, bind_point
from tune.spec.engine_table import EngineName
from tune.spec.load import Slo
from tune.spec.space import Dimension, Search, Sweep
from tune.spec.split import ALL_ROLES, ROLES
from tune.spec.trial import TrialSpec


class StudyRecord(FrozenModel):
    """Hold what identifies a study: its question, backend, space, search, seeds, budget and versions.

    `base_hash` is that of the configuration before a point is bound, `cluster_hash` that of the cluster
    settings that change results. `base` holds both as plain values, so that a message can name a
    difference. `command` holds the Hydra overrides that started the study; repeating them resumes it.
    `space` is empty for a single trial. `versions` names the software that ran the study; a difference
    there is no conflict. `ended` says why the study ended; None while it runs, after a kill and for single
    trials. `aside` names trials on record that are no points of the sweep, since it was corrected.
    `loop` is that of the load: an open one sends at a rate, in a closed one users wait for their answers.
    """

    schema_: Literal[2] = Field(2, alias="schema")
    name: str
    question: str
    backend: BackendName
    stack: str
    engine: EngineName
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
    ended: StudyEnd | None = None
    aside: tuple[str, ...] = ()
    loop: Literal["open", "closed"] = Field(default="open", exclude_if=lambda loop: loop == "open")

    @property
    def sweep(self) -> Sweep | None:
        """Return the sweep of the study; None for single trials."""
        if not self.space:
            return None
        return Sweep(
            question=self.question, n_trials=self.n_trials, fill_decode=self.fill_decode, space=self.space
        )

    @property
    def base_spec(self) -> TrialSpec | None:
        """Return the configuration before a point is bound; None where it is not on record."""
        plain = {name: self.base[name] for name in TrialSpec.model_fields if name in self.base}
        pools = {"aggregated"} if "aggregated" in plain else set(ROLES)
        if not plain.keys() >= TrialSpec.model_fields.keys() - {*ALL_ROLES} | pools:
            return None
        return TrialSpec.model_validate_json(json.dumps(plain))

    def compose_trial(self, trial_id: str, point: Point | None) -> TrialSpec | None:
        """Return the trial `trial_id` composed again from its point.

        Returns None where the point or the configuration before it is not on record, or the point is
        another trial, as it may be since the sweep was corrected.
        """
        base, sweep = self.base_spec, self.sweep
        if base is None or sweep is None or not point or not point.keys() <= sweep.space.keys():
            return None
        varied = sweep.model_copy(update={"space": {name: sweep.space[name] for name in point}})
        spec = bind_point(base, varied, point)
        return spec if spec.trial_id == trial_id else None
