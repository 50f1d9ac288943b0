"""Provide a small space of configurations and the search on it."""

from __future__ import annotations

import pytest

from tune.config import compose_overrides
from tune.spec.settings import Settings
from tune.spec.space import IntDimension, OrderedDimension, Sweep
from tune.study.candidates import Candidates, candidates
from tune.surrogate.optimizer import SurrogateOptimizer

SHORT = ("load.dataset.samples=1000", "load.min_duration_s=30.0", "load.min_queries=1000")

SWEEP = Sweep(
    question="Which split, chunk and decode batch?",
    n_trials=8,
    fill_decode=True,
    space={
        "prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=10, high=16, step=2),
        "chunk": OrderedDimension(kind="ordered", path="prefill.max_num_tokens", values=(2048, 8192)),
        "batch": OrderedDimension(kind="ordered", path="decode.max_batch_size", values=(64, 512)),
    },
)


@pytest.fixture(scope="session")
def settings() -> Settings:
    return compose_overrides(SHORT).settings


@pytest.fixture(scope="session")
def few(settings: Settings) -> Candidates:
    return candidates(settings.trial_spec, SWEEP, 0)


@pytest.fixture(scope="session")
def search(settings: Settings, few: Candidates) -> SurrogateOptimizer:
    """Return a search that tests share: suggestions do not change it."""
    assert settings.cluster.calibration
    return SurrogateOptimizer(few.specs, few.features, few.matters, settings.cluster.calibration, 0)
