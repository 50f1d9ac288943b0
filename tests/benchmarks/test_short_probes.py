"""The arithmetic of the benchmark on the lengths of short probes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("short_probes")


def test_lengths_are_compared_with_the_dataset(short_probes: Any) -> None:
    prompts, answers = np.arange(1, 1001), np.arange(1, 1001)[::-1]
    longer = np.round(prompts * 1.1).astype(np.int64)
    assert short_probes.more((longer, answers), (prompts, answers), 900.0) == pytest.approx(
        (10, 8.2, 0), abs=0.1
    )


def test_strata_stray_less_than_requests_as_they_come(short_probes: Any, make_spec: Any) -> None:
    _, *rows = short_probes.told_of_lengths(make_spec().load, orders=20)
    assert len(rows) == len(short_probes.LENGTHS)
    for row in rows:
        strata, beginning = map(float, row.split()[-2:])
        assert strata < 0.6 * beginning


def test_scatter_is_told_apart_from_what_a_configuration_is_off_by(short_probes: Any) -> None:
    draws = np.random.default_rng(0)
    found = []
    for bias in (-0.1, 0.2):
        luck = draws.normal(0, 0.02, 500)
        luck -= luck.mean()
        expected = [short_probes.Expected(np.exp(bias), np.exp(bias + each)) for each in luck]
        verdicts = [short_probes.Verdict(rate, 0.5, 0.5, 1.5) for rate in short_probes.RATES]
        found.append(short_probes.Found("", expected, verdicts))
    same, other = short_probes.told_of_forecasts(found)
    assert "orders 0.00 %" in same
    assert float(other.split()[4]) == pytest.approx(2, abs=0.2)
    assert other.endswith("-10.0, +20.0")
    assert short_probes.told_of_verdicts(found)[-2].split() == ["all", "100%", "100.0%", "0.0%"]
