"""Name the kind of a configuration: its split and the parallelism of its pools."""

from __future__ import annotations

from collections.abc import Mapping

from tune.spec.engine import Engine, SettingName
from tune.spec.trial import TrialSpec

FURTHER_PARALLELISM: Mapping[str, SettingName] = {"CP": "context_parallel", "PP": "pipeline_stages"}
"""Parallelism that is named where it is more than 1, by its short name."""


def kind_of(spec: TrialSpec) -> str:
    """Return split and parallelism of a trial, such as 14P4D TP4/TP4 or 18A TP4."""
    return f"{spec.split.label} {parallelism_of(spec)}"


def parallelism_of(spec: TrialSpec) -> str:
    """Return the parallelism of the pools of a trial, such as TP4/TP4."""
    return "/".join(_parallelism(pool.engine) for pool in spec.pools)


def parallelism_label(tensor_parallel: object, further: Mapping[str, object]) -> str:
    """Return TP4, or TP4xCP2xPP2 where `further`, by the keys of FURTHER_PARALLELISM, has more than 1."""
    return f"TP{tensor_parallel}" + "".join(
        f"x{short}{n}" for short, n in further.items() if n not in (None, 1)
    )


def _parallelism(engine: Engine) -> str:
    """Return the parallelism of the workers of one pool."""
    return parallelism_label(
        engine.tensor_parallel, {short: getattr(engine, name) for short, name in FURTHER_PARALLELISM.items()}
    )
