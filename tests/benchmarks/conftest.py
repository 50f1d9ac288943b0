"""Import the scripts of benchmarks/ as modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[[str], Any]:
    """Import a module below benchmarks/ by its dotted name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module
