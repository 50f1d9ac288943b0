"""Build trials on the reference configuration for the simulator."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import yaml

from tune.config import compose_overrides
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

SHORT = ("load.concatenate_permutation=false", "load.min_queries=400", "load.min_duration_s=1.0")


def make_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """Build the reference configuration with overrides.

    Hydra composes only groups; values are set here, which is faster.
    """
    values = dict(override.split("=", 1) for override in overrides)
    composed = json.loads(_composed(tuple(f"{k}={v}" for k, v in values.items() if "." not in k)))
    for path, text in values.items():
        if "." in path:
            _set(composed, path.split("."), yaml.safe_load(text))
    settings = Settings.model_validate_json(json.dumps(composed))
    assert settings.cluster.calibration is not None
    spec = TrialSpec(**{name: getattr(settings, name) for name in TrialSpec.model_fields})
    return spec, settings.cluster.calibration


def short_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """Build the reference configuration with 400 queries unless overridden."""
    return make_trial(*SHORT, *overrides)


@lru_cache
def _composed(groups: tuple[str, ...]) -> str:
    return compose_overrides(groups).settings.model_dump_json()


def _set(node: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        node = node[key]
    if path[-1] not in node:
        raise KeyError(path)
    node[path[-1]] = value
