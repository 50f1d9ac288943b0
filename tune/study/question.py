"""What a study asks, pinned in study.json: a resumed study must ask the same."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version

from pydantic import BaseModel

from tune.errors import FixCommand
from tune.results.record import StudyRecord
from tune.spec.settings import Settings

_PINNED = {
    "place": "cluster",
    "cluster_hash": "cluster.calibration",
    "stack": "stack",
    "space": "sweep.space",
    "rest_to_decode": "sweep.rest_to_decode",
    "search": "search",
    "seed": "study.seed",
    "parallel": "study.parallel",
    "incumbent": "study.incumbent",
    "base_hash": "the configuration before the sweep varies it",
}
"""Field of StudyRecord -> what the user would have changed. n_trials and max_gpu_hours may be raised."""

_VERSIONED = ("tune", "optuna", "numpy", "numba")


def pin(settings: Settings, name: str, command: Sequence[str]) -> StudyRecord:
    """The record of the study that `settings` ask for. Without a sweep, base and space are left open."""
    sweep, spec = settings.sweep, settings.trial_spec
    return StudyRecord(
        name=name,
        question=sweep.question if sweep else "Single trials, each with its own overrides.",
        place=settings.cluster.kind,
        stack=spec.stack.name,
        model=spec.model.name,
        hardware=spec.hardware.name,
        nodes=spec.hardware.nodes,
        gpus_per_node=spec.hardware.gpus_per_node,
        gpus=spec.hardware.gpus,
        slo=spec.slo,
        space=sweep.space if sweep else {},
        rest_to_decode=bool(sweep and sweep.rest_to_decode),
        search=settings.search,
        seed=settings.study.seed,
        n_trials=(settings.study.n_trials or sweep.n_trials) if sweep else 1,
        parallel=settings.study.parallel,
        max_gpu_hours=settings.study.max_gpu_hours,
        incumbent=settings.study.incumbent,
        base_hash=spec.trial_id if sweep else "",
        cluster_hash=_hash(settings.cluster.calibration),
        command=tuple(command),
        versions={package: version(package) for package in _VERSIONED}
        | {"python": platform.python_version()},
    )


def require_same_question(recorded: StudyRecord, asked: StudyRecord) -> None:
    """Raises FixCommand, naming every difference, when `asked` is not the question that was recorded."""
    fields = _PINNED if asked.space else {name: _PINNED[name] for name in ("place", "cluster_hash")}
    different = [
        f"  {setting}: the study has {_show(was)}, this command says {_show(now)}"
        for field, setting in fields.items()
        if (was := getattr(recorded, field)) != (now := getattr(asked, field))
    ]
    if different:
        began = shlex.join(["python", "-m", "tune", *recorded.command])
        raise FixCommand(
            f"The study {recorded.name!r} asked another question; nothing was run.\n"
            + "\n".join(different)
            + f"\nGive this one a name of its own (study.name=NAME), or go on with the first: {began}"
        )


def _hash(settings: BaseModel | None) -> str:
    plain = settings.model_dump(mode="json") if settings else None
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _show(value: object) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, dict):
        return json.dumps({k: v.model_dump(mode="json", exclude_defaults=True) for k, v in value.items()})
    return repr(value)
