"""Trials on the reference configuration, for the tests of the simulated rack."""

from __future__ import annotations

from functools import lru_cache

from tune.config import compose_overrides
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

SHORT = ("load.concatenate_permutation=false", "load.min_queries=400", "load.min_duration_s=1.0")


@lru_cache
def make_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """The reference configuration with Hydra overrides."""
    settings = compose_overrides(overrides).settings
    assert settings.cluster.calibration is not None
    spec = TrialSpec(**{name: getattr(settings, name) for name in TrialSpec.model_fields})
    return spec, settings.cluster.calibration


def short_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """The same with 400 queries unless overridden."""
    return make_trial(*SHORT, *overrides)
