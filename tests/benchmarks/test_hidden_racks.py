"""The arithmetic of the benchmark on hidden racks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("hidden.truth")


@pytest.mark.parametrize("guess", [0.6, 9.0, 11.9, 12.1, 50.0])
def test_the_boundary_is_found_from_any_guess(truth: Any, guess: float) -> None:
    assert truth.boundary(lambda qps: qps <= 12, guess, 1.003) == pytest.approx(12, rel=0.0016)


def test_what_never_holds_has_no_rate(truth: Any) -> None:
    assert truth.boundary(lambda qps: False, 12.0, 1.01) == 0


def test_a_committed_boundary_is_found_again(truth: Any) -> None:
    committed = truth.read(truth.path_of("development", 0))
    rack = truth.draw_rack(truth.FIRST_SEED["development"])
    assert {index for index, qps in enumerate(committed) if qps is None} == rack.crashes()
    best = max(range(len(committed)), key=lambda index: committed[index] or 0.0)
    one = truth.CONFIGURATIONS[best]
    assert truth.sharpened(rack, one, committed[best]) == pytest.approx(committed[best], rel=0.004)
