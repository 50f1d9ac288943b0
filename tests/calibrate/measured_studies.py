"""Trials that a simulated rack with another calibration measured, as records on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tune.clusters.simulated import SimulatedRack
from tune.config import compose_overrides, trial_overrides
from tune.results.folder import StudyFolder
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.study.question import pin
from tune.study.study import opened, run_trial

SHORT = ("load.concatenate_permutation=false", "load.min_duration_s=60.0")
WHOLE_PASS = ("load.dataset.samples=3000", "load.min_duration_s=120.0")


STEADY = tuple(
    f"cluster.calibration.{name}={value}"
    for name, value in (
        ("prefill_scale", 0.9),
        ("decode_scale", 1.11),
        ("ttft_overhead_s", 0.1),
        ("last_decode_worker_scale", 1.12),
        ("head_node_scale", 1.0),
        ("large_batch_weight_reads", 0.0),
    )
)
"""A rack of these tests alone, whatever the shipped one is fitted to."""


def settings_of(*overrides: str) -> Settings:
    return compose_overrides((*STEADY, *overrides)).settings


def calibration_of(settings: Settings) -> Calibration:
    assert settings.cluster.calibration is not None
    return settings.cluster.calibration


def measure_trial(root: Path, *overrides: str) -> StudyFolder:
    """The study in `root` with one more trial, of the configuration that `overrides` make."""
    settings = settings_of(*overrides)
    with (
        opened(root, pin(settings, root.name, ())) as folder,
        SimulatedRack(calibration_of(settings), 1) as place,
    ):
        run_trial(folder, settings, place, partial(trial_overrides, settings=settings))
    return folder


def logs_of(folder: StudyFolder) -> Path:
    """The folder of LoadGen's logs of the only trial."""
    (logs,) = folder.root.glob("*/raw/1/probe-1")
    return logs
