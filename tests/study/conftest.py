"""Provide a small study to confirm."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest
from support.confirmations import FIXED
from support.studies import run_composed_study


@pytest.fixture(scope="session")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a study at fixed rates, and return its runs folder."""
    runs = tmp_path_factory.mktemp("runs")
    run_composed_study(runs, FIXED)
    return runs


@pytest.fixture
def runs(fixed: Path, tmp_path: Path) -> Path:
    """Copy the runs folder of the study, for a test to change."""
    return Path(copytree(fixed, tmp_path / "runs"))
