"""What a study asks, pinned in study.json: a resumed study must ask the same."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from tune.errors import ConfigurationError
from tune.records.study_record import StudyRecord
from tune.spec.load import Slo
from tune.spec.settings import Settings

_PINNED = {
    "backend": "cluster",
    "stack": "stack",
    "space": "sweep.space",
    "fill_decode": "sweep.fill_decode",
    "search": "search",
    "seed": "study.seed",
    "parallel": "study.parallel",
    "baseline": "study.baseline",
}
"""Field of StudyRecord -> what the user would have changed. n_trials and max_gpu_hours may be raised."""

_SEVERAL = "several, each trial its own"

_VERSIONED = ("tune", "optuna", "numpy", "numba")


def study_record(settings: Settings, name: str, command: Sequence[str]) -> StudyRecord:
    """The record of the study that `settings` ask for. Without a sweep, base and space are left open."""
    sweep, spec = settings.sweep, settings.trial_spec
    return StudyRecord(
        name=name,
        question=sweep.question if sweep else "Single trials, each with its own overrides.",
        backend=settings.cluster.kind,
        stack=spec.stack.name,
        engine=spec.stack.engine,
        model=spec.model.name,
        hardware=spec.hardware.name,
        nodes=spec.hardware.nodes,
        gpus_per_node=spec.hardware.gpus_per_node,
        gpus=spec.hardware.gpus,
        slo=spec.slo,
        space=sweep.space if sweep else {},
        fill_decode=bool(sweep and sweep.fill_decode),
        search=settings.search,
        seed=settings.study.seed,
        n_trials=(settings.study.n_trials or sweep.n_trials) if sweep else 1,
        parallel=settings.parallel,
        max_gpu_hours=settings.study.max_gpu_hours,
        baseline=settings.study.baseline,
        base_hash=spec.trial_id if sweep else "",
        base=_base(settings, bool(sweep)),
        cluster_hash=_hash(settings.cluster.calibration),
        command=tuple(command),
        versions={package: version(package) for package in _VERSIONED}
        | {"python": platform.python_version()},
    )


def merge_on_resume(recorded: StudyRecord, asked: StudyRecord) -> StudyRecord:
    """The record of a study that goes on: the larger n_trials and its command, the new budget and versions.

    A study of single trials is described by what its trials share. Raises ConfigurationError, naming every
    difference, when `asked` is not the question that was recorded.
    """
    _require_same_question(recorded, asked)
    larger = asked if asked.n_trials > recorded.n_trials else recorded
    record = larger.model_copy(
        update={"max_gpu_hours": asked.max_gpu_hours, "versions": asked.versions, "name": asked.name}
    )
    if asked.space:
        return record
    shared = {
        name: getattr(asked, name) if getattr(asked, name) == getattr(recorded, name) else _SEVERAL
        for name in ("stack", "model", "hardware")
    }
    slo = asked.slo if asked.slo == recorded.slo else Slo(ttft_p99_s=None, tpot_p99_s=None)
    return record.model_copy(update={**shared, "slo": slo})


def require_same_backend(recorded: StudyRecord, settings: Settings, words: Sequence[str]) -> None:
    """Raises ConfigurationError, naming every difference, where `settings` are of another place than the study's.

    `words`: the overrides that would be right.
    """
    different = []
    if recorded.backend != settings.cluster.kind:
        different.append(("cluster", recorded.backend, settings.cluster.kind))
    if recorded.cluster_hash != _hash(settings.cluster.calibration):
        was = {"cluster": recorded.base.get("cluster", {})}
        different += _differences(was, _base(settings, with_trial=False))
    if different:
        raise ConfigurationError(
            f"The study {recorded.name!r} was measured elsewhere; nothing was run.\n{_listed(different)}\n"
            f"Expected its own place: {shlex.join(['python', '-m', 'tune', *words])}"
        )


def _require_same_question(recorded: StudyRecord, asked: StudyRecord) -> None:
    fields = _PINNED if asked.space or recorded.space else {"backend": _PINNED["backend"]}
    different = [
        (setting, was, now)
        for field, setting in fields.items()
        if _ordered(was := getattr(recorded, field)) != _ordered(now := getattr(asked, field))
    ]
    if (recorded.base_hash, recorded.cluster_hash) != (asked.base_hash, asked.cluster_hash):
        different += _differences(recorded.base, asked.base)
    if different:
        began = shlex.join(["python", "-m", "tune", *recorded.command])
        raise ConfigurationError(
            f"The study {recorded.name!r} asked another question; nothing was run.\n{_listed(different)}\n"
            f"Give this one a name of its own (study.name=NAME), or go on with the first: {began}"
        )


def _listed(different: Sequence[tuple[str, Any, Any]]) -> str:
    return "\n".join(
        f"  {setting}: the study has {_show(was)}, this command says {_show(now)}"
        for setting, was, now in different
    )


def _base(settings: Settings, with_trial: bool) -> dict[str, Any]:
    calibration = settings.cluster.calibration
    cluster = {"cluster": {"calibration": calibration.model_dump(mode="json") if calibration else None}}
    return (settings.trial_spec.model_dump(mode="json") if with_trial else {}) | cluster


def _differences(
    was: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> list[tuple[str, Any, Any]]:
    found = []
    for key in {**was, **now}:
        left, right = was.get(key), now.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{path}{key}.")
        elif left != right:
            found.append((f"{path}{key}", left, right))
    return found


def _hash(settings: BaseModel | None) -> str:
    plain = settings.model_dump(mode="json") if settings else None
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _ordered(value: object) -> object:
    """The order of a space is part of it: a grid is walked in that order."""
    return list(value.items()) if isinstance(value, dict) else value


def _show(value: object) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, dict):
        plain = {
            key: item.model_dump(mode="json", exclude_defaults=True) if isinstance(item, BaseModel) else item
            for key, item in value.items()
        }
        return json.dumps(plain)
    return repr(value)
