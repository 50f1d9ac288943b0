"""Pin the settings of a study in study.json, and check that a resumed study has them too."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tune.core.differences import leaf_differences
from tune.core.version import __version__
from tune.errors import ConfigurationError
from tune.records.study_record import StudyRecord
from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.environment import recorded_environments
from tune.spec.load import Slo
from tune.spec.settings import Settings

_PINNED = {
    "backend": "cluster",
    "loop": "the loop of the load (load.mode)",
    "stack": "stack",
    "search": "search",
    "seed": "study.seed",
    "parallel": "study.parallel",
    "baseline": "study.baseline",
}
"""Field of StudyRecord -> setting that the user would have changed. n_trials and max_gpu_hours may grow, and
the sweep may be corrected (tune/study/corrected_sweep.py)."""

_RANGE = "load.rate_range_qps"
"""Setting that a study keeps as recorded: a capacity search only begins in this range of rates."""

_SEVERAL = "several, each trial its own"
"""Value on record for a part of the configuration in which single trials differ."""

_VERSIONED = ("optuna", "numpy", "numba")
"""Packages whose versions go on record beside those of tune and Python."""


def study_record(settings: Settings, name: str, command: Sequence[str]) -> StudyRecord:
    """Return the record of the study that a command describes.

    Parameters
    ----------
    settings
        The composed configuration. Without a sweep, base and space of the record are empty.
    name
        Name of the study.
    command
        Overrides that start the study, as typed.

    Returns
    -------
    StudyRecord
        The settings that a resumed study must share, and the versions of tune and of its libraries.
    """
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
        cluster_hash=_cluster_hash(settings),
        command=tuple(command),
        loop="closed" if spec.load.is_closed_loop else "open",
        versions={"tune": __version__}
        | {package: version(package) for package in _VERSIONED}
        | {"python": platform.python_version()}
        | _checkout(),
    )


def _checkout() -> dict[str, str]:
    """Return the commit of the checkout that tune runs from, marked if it has changes; none without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return {"checkout": f"not known: {error}"}
    return {"checkout": done.stdout.strip()}


def merge_on_resume(recorded: StudyRecord, requested: StudyRecord) -> StudyRecord:
    """Return the record of a resumed study: the larger n_trials and its command, the new budget and versions.

    A study of single trials is described by what its trials share. Raises ConfigurationError, naming every
    difference, when a setting that is pinned differs in `requested`.
    """
    _require_same_question(recorded, requested)
    corrected = requested.space != recorded.space
    latest = requested if corrected or requested.n_trials > recorded.n_trials else recorded
    record = latest.model_copy(
        update={
            "n_trials": max(requested.n_trials, recorded.n_trials),
            "space": requested.space,
            "fill_decode": requested.fill_decode,
            "base": recorded.base,
            "base_hash": recorded.base_hash,
            "max_gpu_hours": requested.max_gpu_hours,
            "versions": requested.versions,
            "name": requested.name,
            "ended": None,
        }
    )
    if requested.space:
        return record
    shared = {
        name: getattr(requested, name) if getattr(requested, name) == getattr(recorded, name) else _SEVERAL
        for name in ("stack", "model", "hardware")
    }
    slo = requested.slo if requested.slo == recorded.slo else Slo(ttft_p99_s=None, tpot_p99_s=None)
    return record.model_copy(update={**shared, "slo": slo})


def with_recorded_range(settings: Settings, study: StudyRecord) -> Settings:
    """Return `settings` with the study's range of rates: another one would make its trials other trials."""
    recorded = study.base.get("load", {}).get("rate_range_qps")
    rate_range_qps = tuple(recorded) if recorded else None
    load = settings.load.model_copy(update={"rate_range_qps": rate_range_qps})
    return settings.model_copy(update={"load": load})


def require_same_backend(recorded: StudyRecord, settings: Settings, overrides: Sequence[str]) -> None:
    """Raise ConfigurationError where what of the cluster changes results is not the study's.

    The message names every difference. `overrides` are those that would be right; the message shows them.
    """
    different = []
    if recorded.backend != settings.cluster.kind:
        different.append(("cluster", recorded.backend, settings.cluster.kind))
    if recorded.cluster_hash != _cluster_hash(settings):
        before = {"cluster": recorded.base.get("cluster", {})}
        different += leaf_differences(before, _base(settings, with_trial=False))
    if different:
        raise ConfigurationError(
            f"The study {recorded.name!r} was measured elsewhere; nothing was run.\n{_listed(different)}\n"
            f"Expected its own backend: {shlex.join(['python', '-m', 'tune', *overrides])}"
        )


def _require_same_question(recorded: StudyRecord, requested: StudyRecord) -> None:
    """Raise ConfigurationError, naming every pinned setting that differs."""
    always = {field: _PINNED[field] for field in ("backend", "loop")}
    fields = _PINNED if requested.space or recorded.space else always
    different = [
        (setting, before, after)
        for field, setting in fields.items()
        if (before := getattr(recorded, field)) != (after := getattr(requested, field))
    ]
    if bool(recorded.space) != bool(requested.space):
        different.append(("sweep.space", recorded.space, requested.space))
    if (recorded.base_hash, recorded.cluster_hash) != (requested.base_hash, requested.cluster_hash):
        leaves = leaf_differences(recorded.base, requested.base)
        different += [leaf for leaf in leaves if not (requested.space and leaf[0].startswith(_RANGE))]
    if different:
        command = shlex.join(["python", "-m", "tune", *recorded.command])
        raise ConfigurationError(
            f"The study {recorded.name!r} has different settings; nothing was run.\n{_listed(different)}\n"
            f"Give this one a name of its own (study.name=NAME), or resume the recorded study: {command}"
        )


def _listed(different: Sequence[tuple[str, Any, Any]]) -> str:
    """Return one line for each (setting, recorded value, requested value)."""
    return "\n".join(
        f"  {setting}: the study has {_show(before)}, this command says {_show(after)}"
        for setting, before, after in different
    )


def _base(settings: Settings, with_trial: bool) -> dict[str, Any]:
    """Return what of the cluster changes results and, if asked for, the composed trial as plain values."""
    trial = settings.trial_spec.model_dump(mode="json") if with_trial else {}
    return trial | {"cluster": _cluster(settings)}


def _cluster(settings: Settings) -> dict[str, Any]:
    """Return the calibration and, where real processes run, what else of the cluster changes results."""
    calibration = settings.cluster.calibration
    plain = {"calibration": calibration.model_dump(mode="json") if calibration else None}
    if not BACKEND_DECLARATIONS[settings.cluster.kind].capabilities.real_time:
        return plain
    facts = settings.cluster
    return plain | recorded_environments({"srun_env": facts.srun_env}) | facts.launch_options


def _cluster_hash(settings: Settings) -> str:
    """Return the first 12 hex digits of the SHA-256 of _cluster, or of the calibration alone, as JSON."""
    cluster = _cluster(settings)
    plain = cluster if len(cluster) > 1 else cluster["calibration"]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _show(value: object) -> str:
    """Return a value for a message."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, dict):
        plain = {
            key: item.model_dump(mode="json", exclude_defaults=True) if isinstance(item, BaseModel) else item
            for key, item in value.items()
        }
        return json.dumps(plain)
    return repr(value)
