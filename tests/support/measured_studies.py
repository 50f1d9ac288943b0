"""Measure trials on a simulated rack with another calibration, as records on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from support.composed import composed
from tune.backends.simulated import SimulatorBackend
from tune.config import trial_overrides
from tune.records.folders import StudyFolder
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.study.identity import study_record
from tune.study.loop import open_study, run_trial

SHORT = ("load.concatenate_permutation=false", "load.min_duration_s=66.0")
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
"""Calibration of these tests only, independent of the shipped one."""


def settings_for(*overrides: str) -> Settings:
    return composed(*STEADY, *overrides)


def calibration_of(settings: Settings) -> Calibration:
    assert settings.cluster.calibration is not None
    return settings.cluster.calibration


def measure_trial(root: Path, *overrides: str) -> StudyFolder:
    """Return the study in `root` with one more trial, that of `overrides`."""
    settings = settings_for(*overrides)
    with (
        open_study(root, study_record(settings, root.name, ())) as folder,
        SimulatorBackend(calibration_of(settings), 0) as backend,
    ):
        run_trial(folder, settings, backend, partial(trial_overrides, settings=settings))
    return folder


def logs_of(folder: StudyFolder) -> Path:
    """Return the folder of LoadGen's logs of the only trial."""
    (logs,) = folder.root.glob("*/raw/1/probe-1")
    return logs
