"""Test the problems of benchmarks/simulated_problems.py and the search for the highest rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RATES_QPS = st.floats(0.1, 400.0)


@pytest.fixture
def search(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("simulated_problems")


@given(limit_qps=RATES_QPS, guess_qps=RATES_QPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_highest_rate_is_found_from_any_guess(search: Any, limit_qps: float, guess_qps: float) -> None:
    found_qps = search.highest_rate(lambda qps: qps <= limit_qps, guess_qps)
    assert found_qps <= limit_qps <= found_qps * search.TOLERANCE


def test_no_rate_is_found_where_none_passes(search: Any) -> None:
    assert search.highest_rate(lambda qps: False, 10.0) == 0.0


@pytest.mark.parametrize("number", [5, 10, 13])
def test_a_problem_is_drawn_by_its_number(search: Any, number: int) -> None:
    problem = search.draw_problem(number)
    assert problem.label == search.draw_problem(number).label
    assert problem.settings.sweep
    assert 3 <= len(problem.settings.sweep.space) <= 11
    assert "prefill_workers" in problem.settings.sweep.space


@pytest.mark.slow
def test_a_climb_goes_to_the_best_neighbour_until_none_is_better(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capacities are made up: 18 queries/s at 17 prefill workers, one less for each more or fewer."""
    capacity_qps = lambda spec: 18.0 - abs(spec.split.prefill_workers - 17)  # noqa: E731
    monkeypatch.setattr(search, "holds", lambda problem, spec, qps: qps <= capacity_qps(spec))
    climb = search.Climb(search.draw_problem(0))
    workers = [point["prefill_workers"] for point in climb.space.points]
    start = workers.index(min(workers))
    climb.climb_from(18.0 - abs(workers[start] - 17), start)
    qps, index = climb.best[-1]
    assert qps == pytest.approx(18.0, rel=search.TOLERANCE - 1)
    assert climb.space.points[index]["prefill_workers"] == 17
    assert len(climb.tried) < 400
