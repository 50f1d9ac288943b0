"""Test what a capacity search costs, as the benchmark on synthetic racks draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # the space of configurations takes seconds to bind


@pytest.fixture
def probe_costs(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("probe_costs")


@pytest.fixture
def bench(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("search_synthetic_racks")


def test_a_deployment_far_below_the_rate_to_beat_stops_early_and_costs_less(
    probe_costs: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_costs, "EARLY_STOP_FRACS", (1.8,))
    whole, stopped = probe_costs.search_each((9007, bench.SEED))
    assert (whole.early_stop_frac, stopped.early_stop_frac) == (0.0, 1.8)
    assert not whole.stopped_early
    assert stopped.stopped_early
    assert stopped.runs < whole.runs


def test_early_stops_save_half_of_the_runs_in_the_committed_searches(probe_costs: Any) -> None:
    costs = probe_costs.read_costs()
    by_rate = {
        early_stop_frac: [cost for cost in costs if cost.early_stop_frac == early_stop_frac]
        for early_stop_frac in (0.0, *probe_costs.EARLY_STOP_FRACS)
    }
    assert all(by_rate.values())
    assert not any(cost.stopped_early for cost in by_rate[0.0])
    assert all(cost.stopped_early for cost in by_rate[1.8])
    assert np.mean([cost.runs for cost in by_rate[1.8]]) < 0.5 * np.mean([cost.runs for cost in by_rate[0.0]])
    assert len("\n".join(probe_costs.table(costs)).splitlines()) == 2 + len(by_rate)


def cost(bench: Any, early_stop_frac: float, ratio: float, **changes: Any) -> Any:
    """Build a search whose other pool could do `ratio` times the capacity."""
    figures = {"stopped_early": False, "runs": 1.5, "capacity_frac": 0.99, "other_pool_frac": 1.0} | changes
    return bench.SearchCost(rack=9000, early_stop_frac=early_stop_frac, other_pool_ratio=ratio, **figures)


def test_a_deployment_behaves_as_the_search_of_the_nearest_rate_to_beat(bench: Any) -> None:
    stopped = {"stopped_early": True, "runs": 0.2}
    of_rack = [
        cost(bench, frac, ratio, **(stopped if frac else {})) for frac in (0.0, 1.2) for ratio in (1.1, 3)
    ]
    result, runs = bench.deploy(10.0, (10.2, 30.0), 10.5, 0.0, of_rack)
    assert (result.status, result.qps, runs) == ("measured", 10.5, 1.5)
    result, runs = bench.deploy(10.0, (10.2, 30.0), 10.5, 12.0, of_rack)
    assert (result.status, result.qps, runs) == ("forecast", 10.5 * 0.99, 0.2)


@pytest.mark.parametrize(
    ("pools_qps", "ratio"), [((10.2, 14.0), 1.4), ((30.0, 10.2), 3.0), ((10.2, 900.0), 4.0)]
)
def test_a_deployment_shows_the_capacities_of_its_pools(
    bench: Any, pools_qps: tuple[float, float], ratio: float
) -> None:
    """The bottleneck shows in the capacity; the other pool is as accurate as in the search."""
    of_rack = [cost(bench, 0.0, 1.3, other_pool_frac=0.97), cost(bench, 0.0, 3.3, other_pool_frac=0.8)]
    result, _ = bench.deploy(10.0, pools_qps, 10.5, 0.0, of_rack)
    rates = np.array([result.prefill_capacity_qps, result.decode_capacity_qps])
    lower = int(np.argmin(pools_qps))
    assert rates[lower] == pytest.approx(10.5, rel=0.01)
    assert rates[1 - lower] == pytest.approx(10.5 * ratio * (0.97 if ratio < 2 else 0.8))


def test_a_deployment_that_holds_no_rate_shows_only_that_and_ends_early(bench: Any) -> None:
    of_rack = [cost(bench, 0.0, 1.3), cost(bench, 1.8, 1.3, stopped_early=True, runs=0.1)]
    result, runs = bench.deploy(0.0, (0.0, 9.0), 0.0, 12.0, of_rack)
    assert (result.status, result.qps, result.decode_capacity_qps, runs) == ("below", 0.0, None, 0.1)
    assert bench.gpu_hours(0, 0.0, runs) < bench.gpu_hours(0, 6.0, 1.0)


def test_a_method_that_stops_early_observes_forecasts_and_never_answers_with_one(
    bench: Any, benchmark_module: Callable[[str], Any]
) -> None:
    stored = benchmark_module("synthetic_racks.capacity_tables").read_set("development").capacities[1]
    observed: list[Any] = []

    class Spy(bench.METHODS["gp"]):  # type: ignore[misc, name-defined]
        def observe(self, number: int, index: int | None, result: Any) -> None:
            observed.append(result)
            super().observe(number, index, result)

        def best(self, known: Any, count: int) -> list[int]:
            indices: list[int] = super().best(known, count)
            assert all(known[index].status == "measured" for index in indices)
            return indices

    stops, _ = bench.run(stored, Spy, 1, 0, "gp")
    assert {result.status for result in observed} >= {"measured", "forecast"}
    Spy.stops_early = False
    observed.clear()
    goes_on, _ = bench.run(stored, Spy, 1, 0, "gp")
    assert "forecast" not in {result.status for result in observed}
    assert stops[9].gpu_hours < goes_on[9].gpu_hours
