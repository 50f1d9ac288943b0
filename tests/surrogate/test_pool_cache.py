"""Test that simulated prefill pools on disk are simulated again if damaged, foreign or of other code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.composed import composed

from tune.surrogate import emulator as emulator_module
from tune.surrogate.emulator import Emulator
from tune.surrogate.pool_cache import PoolCache, cache_folder, content_key
from tune.surrogate.prior import ParameterPrior, structural_hypotheses

KEY = "0" * 64
ARRAYS = [np.arange(6.0).reshape(2, 3), np.array([1.5])]
SHAPES = [(2, 3), (1,)]


@pytest.fixture
def filled(tmp_path: Path) -> PoolCache:
    pools = PoolCache(tmp_path / "pools")
    pools.write(KEY, ARRAYS)
    return pools


def test_entry_is_read_as_written(filled: PoolCache) -> None:
    read = filled.read(KEY, SHAPES)
    assert read is not None
    assert all((got == wrote).all() for got, wrote in zip(read, ARRAYS, strict=True))
    assert filled.read("1" * 64, SHAPES) is None


@given(cut=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_entry_counts_as_missing_or_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("pools")
    pools = PoolCache(folder)
    pools.write(KEY, ARRAYS)
    path = folder / f"{KEY}.npz"
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    assert pools.read(KEY, SHAPES) is None
    place = cut % len(content)
    path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    read = pools.read(KEY, SHAPES)
    assert read is None or all((got == wrote).all() for got, wrote in zip(read, ARRAYS, strict=True))


@pytest.mark.parametrize("shapes", [[(3, 2), (1,)], [(2, 3), (1,), (1,)]])
def test_entry_of_another_shape_counts_as_missing(filled: PoolCache, shapes: list[tuple[int, ...]]) -> None:
    assert filled.read(KEY, shapes) is None


def test_latest_used_entries_are_kept_and_no_foreign_file_is_touched(tmp_path: Path) -> None:
    pools = PoolCache(tmp_path)
    for number in range(5):
        pools.write(str(number) * 64, ARRAYS)
        os.utime(tmp_path / f"{str(number) * 64}.npz", (number, number))
    (tmp_path / "notes.npz").write_text("mine")
    assert pools.read("0" * 64, SHAPES)
    pools.prune(2)
    assert {path.name for path in tmp_path.iterdir()} == {f"{'0' * 64}.npz", f"{'4' * 64}.npz", "notes.npz"}


def test_folder_that_cannot_be_used_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for pools in (PoolCache(None), PoolCache(tmp_path / "file" / "pools")):
        pools.write(KEY, ARRAYS)
        assert pools.read(KEY, SHAPES) is None
        pools.prune()


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tune" / "prefill-pools"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tune" / "prefill-pools"


@given(st.lists(st.one_of(st.text(), st.integers(), st.binary()), max_size=4), st.data())
def test_key_depends_on_every_part_and_on_their_borders(parts: list[object], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.one_of(st.text(), st.integers(), st.binary()), max_size=4))
    assert (content_key(parts) == content_key(others)) == (
        [part if isinstance(part, bytes) else repr(part).encode() for part in parts]
        == [part if isinstance(part, bytes) else repr(part).encode() for part in others]
    )
    assert content_key([np.zeros(2)]) != content_key([np.zeros((2, 1))]) != content_key([np.ones(2)])


def test_second_emulator_simulates_nothing_and_predicts_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    short = ["load.dataset.samples=500", "load.min_duration_s=20.0", "load.min_queries=500"]
    settings = composed("+sweep=pd_split", "load.mode=capacity", *short)
    calibration = settings.cluster.calibration
    assert calibration is not None
    assert settings.sweep is not None
    specs = []
    for workers in (13, 14):
        split = settings.split.model_copy(update={"prefill_workers": workers, "decode_workers": 18 - workers})
        specs.append(settings.trial_spec.model_copy(update={"split": split}))
    prior = ParameterPrior([4], [4], structural_hypotheses(specs[0], calibration, True))
    simulated: list[int] = []
    simulate = emulator_module.latency_curves

    def counted(*arguments: object) -> object:
        simulated.append(1)
        return simulate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(emulator_module, "latency_curves", counted)
    samples = prior.draw(20, np.random.default_rng(0))
    capacities = []
    for changed in ({}, {}, {"prefill_scale": calibration.prefill_scale * 1.1}):
        emulator = Emulator(specs, calibration.model_copy(update=changed), prior)
        capacities.append(emulator.log_pool_capacity(samples, np.arange(2)))
    assert len(simulated) == 4, "two pools once, and again for another calibration"
    assert (capacities[0] == capacities[1]).all()
    assert (capacities[0] != capacities[2]).any()
