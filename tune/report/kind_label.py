"""Name the kind of a trial on record, its split and parallelism."""

from __future__ import annotations

from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.spec.engine_table import settings_class
from tune.spec.kind import FURTHER_PARALLELISM, parallelism_label
from tune.spec.split import ALL_ROLES


def kind_label(outcome: Outcome, study: StudyRecord) -> str | None:
    """Return split and parallelism, such as 14P4D TP4/TP4 or 18A TP4; None where none is recorded.

    The split stands alone where the parallelism of a pool is not on record.
    """
    split = formatting.split_label(outcome)
    if split is None:
        return None
    pools = [role for role in ALL_ROLES if role[0].upper() in split]
    parts = [_parallelism(outcome, study, pool) for pool in pools]
    parallelism = outcome.provenance.get("parallelism") or ("/".join(parts) if all(parts) else "")
    return f"{split} {parallelism}".rstrip()


def _parallelism(outcome: Outcome, study: StudyRecord, pool: str) -> str:
    """Return TP4, or TP4xCP2xPP2 with context parallelism and stages; empty if it is not on record."""
    keys = settings_class(study.engine).KEYS
    tensor = _setting(outcome, study, pool, keys["tensor_parallel"])
    if tensor is None:
        return ""
    further = {
        short: _setting(outcome, study, pool, keys[name])
        for short, name in FURTHER_PARALLELISM.items()
        if name in keys
    }
    return parallelism_label(tensor, further)


def _setting(outcome: Outcome, study: StudyRecord, pool: str, key: str) -> object:
    """Return a setting of a pool: the value proposed for the trial, or that of the study."""
    path, point = f"{pool}.{key}", formatting.params(outcome)
    for name, dimension in study.space.items():
        if dimension.path == path and name in point:
            return point[name]
    if not study.space:
        for override in formatting.overrides(outcome) or ():
            if override.removeprefix("+").startswith(f"{path}="):
                return override.partition("=")[2]
    return study.base.get(pool, {}).get(key)
