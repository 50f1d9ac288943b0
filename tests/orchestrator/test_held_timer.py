"""Test that an attempt holds its GPUs until the next begins there, or all its processes have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.orchestrator import held_timer
from tune.orchestrator.held_timer import HeldTimer
from tune.records.held_time import read_free_after


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the readings of the clock, the next one last."""
    readings: list[float] = []
    monkeypatch.setattr(held_timer.time, "monotonic", readings.pop)
    return readings


def test_each_attempt_is_held_until_the_next_begins(clock: list[float], tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    clock[:] = [1900.0, 1630.0, 1630.0, 1000.0]
    held = HeldTimer(print)
    held.begin(first)
    assert read_free_after(first) is None
    held.begin(second)
    held.end()
    held.end()
    assert (read_free_after(first), read_free_after(second)) == (630.0, 270.0)


def test_a_time_that_cannot_be_written_is_said(clock: list[float], tmp_path: Path) -> None:
    (tmp_path / "1" / "held.json" / "kept").mkdir(parents=True)
    clock[:] = [2.0, 1.0]
    said: list[str] = []
    held = HeldTimer(said.append)
    held.begin(tmp_path / "1")
    held.end()
    assert said[0].startswith("for how long attempt 1 held its GPUs is lost: ")
