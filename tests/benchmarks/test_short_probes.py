"""Test the arithmetic of the benchmark on the lengths of short probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def short_probes(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("short_probes")


def test_lengths_are_compared_with_the_dataset(short_probes: Any) -> None:
    prompts, answers = np.arange(1, 1001), np.arange(1, 1001)[::-1]
    longer = np.round(prompts * 1.1).astype(np.int64)
    assert short_probes.excess((longer, answers), (prompts, answers), 900.0) == pytest.approx(
        (10, 8.2, 0), abs=0.1
    )


@pytest.mark.slow
def test_strata_stray_less_than_the_beginning_of_a_run(short_probes: Any, make_spec: Any) -> None:
    _, *rows = short_probes.length_lines(make_spec().load, shuffles=20)
    assert len(rows) == len(short_probes.LENGTHS)
    for row in rows:
        strata, beginning = map(float, row.split()[-2:])
        assert strata < 0.6 * beginning


def test_scatter_is_separated_from_the_error_of_a_configuration(short_probes: Any) -> None:
    draws = np.random.default_rng(0)
    measured = []
    for bias in (-0.1, 0.2):
        luck = draws.normal(0, 0.02, 500)
        luck -= luck.mean()
        forecasts = [short_probes.Forecasts(np.exp(bias), np.exp(bias + each)) for each in luck]
        verdicts = [short_probes.Verdict(rate, 0.5, 0.5, 1.5) for rate in short_probes.RATES]
        measured.append(short_probes.Measured("", forecasts, verdicts))
    same, other = short_probes.forecast_lines(measured)
    assert "shuffles 0.00 %" in same
    assert float(other.split()[4]) == pytest.approx(2, abs=0.2)
    assert other.endswith("-10.0, +20.0")
    assert short_probes.verdict_lines(measured)[-2].split() == ["all", "100%", "100.0%", "0.0%"]
