"""Provide a study beside a replaced Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_slurm import FakeSlurm
from support.slurm_study import Study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    slurm = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", str(slurm.path), prepend=":")
    return Study(tmp_path, slurm)
