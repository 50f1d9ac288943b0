"""Fill in what a composed configuration leaves open: load mode, search, dataset content."""

from __future__ import annotations

import hashlib

from tune.backends.registry import BACKENDS
from tune.errors import ConfigurationError
from tune.spec.settings import Settings
from tune.spec.space import Sweep
from tune.workload.length_files import find_lengths, pinned_path


def complete_settings(settings: Settings, *, mode_is_open: bool) -> Settings:
    """Return `settings` without open choices.

    `mode_is_open`: load.mode is null, so that the load mode that suits backend and sweep is filled in. Raises
    ConfigurationError where the dataset cannot be read, the sweep varies nothing but the rate that
    load.mode=capacity searches for and a closed loop lacks, or the backend lacks its calibration.
    """
    capabilities = BACKENDS[settings.cluster.kind].capabilities
    if capabilities.needs_calibration and settings.cluster.calibration is None:
        raise ConfigurationError(
            f"cluster.calibration: found null; cluster={settings.cluster.kind} needs its calibration "
            f"(conf/cluster/{settings.cluster.kind}.yaml)."
        )
    settings = _with_dataset(settings)
    if mode_is_open:
        settings = _with_mode(settings, real_time=capabilities.real_time)
    if settings.sweep and settings.load.mode == "capacity":
        settings = _with_rate_range(settings, settings.sweep)
    if settings.sweep and settings.load.is_closed_loop:
        sweep = settings.sweep.without("load.target_qps")
        settings = settings.model_copy(update={"sweep": sweep})
    return _with_search(settings)


def _with_mode(settings: Settings, *, real_time: bool) -> Settings:
    """Choose load.mode=capacity where a deployment takes minutes to start and not only rates vary."""
    sweep = settings.sweep
    paths = {dimension.path for dimension in sweep.space.values()} if sweep else set()
    if not real_time or not paths - {"load.target_qps"}:
        return settings
    load = settings.load.model_copy(update={"mode": "capacity"})
    return settings.model_copy(update={"load": load})


def _with_search(settings: Settings) -> Settings:
    """Choose the search method that suits load and sweep where search.name is null."""
    sweep = settings.sweep
    learns = sweep is not None and not sweep.has_aggregated(settings.split.aggregated_workers)
    name = settings.search.name or ("surrogate" if learns and settings.load.mode == "capacity" else "tpe")
    return settings.model_copy(update={"search": settings.search.model_copy(update={"name": name})})


def _with_rate_range(settings: Settings, sweep: Sweep) -> Settings:
    """Move the sweep's dimension of the rate to load.rate_range_qps, which bounds the capacity search."""
    load = settings.load
    if load.rate_range_qps is None:
        load = load.model_copy(update={"rate_range_qps": sweep.ends("load.target_qps")})
    return settings.model_copy(update={"load": load, "sweep": sweep.without("load.target_qps")})


def _with_dataset(settings: Settings) -> Settings:
    """Pin the dataset's file by its content and, unless it comes with tune, by its absolute path."""
    dataset = settings.load.dataset
    if dataset.path is None:
        return settings
    pinned = pinned_path(dataset.path)
    path = find_lengths(pinned)
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"load.dataset.path: {path} cannot be read ({error.strerror}); expected a CSV or JSON lines "
            "with input_tokens and output_tokens, or the benchmark's pickle (*.pkl)."
        ) from None
    if dataset.sha256 not in (None, sha256):
        raise ConfigurationError(
            f"load.dataset.sha256: {path} has {sha256}, expected {dataset.sha256}: the file is not the one "
            "that was measured. Restore it, or leave sha256 out to measure this one."
        )
    dataset = dataset.model_copy(update={"path": pinned, "sha256": sha256})
    return settings.model_copy(update={"load": settings.load.model_copy(update={"dataset": dataset})})
