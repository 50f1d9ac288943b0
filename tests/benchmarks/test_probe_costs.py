"""What the capacity search spends, as the benchmark on hidden racks draws it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def probe_costs(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("probe_costs")


@pytest.fixture
def bench(probe_costs: Any) -> Any:
    return importlib.import_module("hidden_racks")


@pytest.mark.slow
def test_a_deployment_far_below_the_rate_to_beat_is_given_up_and_costs_less(
    probe_costs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_costs, "BEATS", (1.8,))
    usual, beaten = probe_costs.searches((9007, importlib.import_module("hidden.space").SEED))
    assert (usual.beat_frac, beaten.beat_frac) == (0.0, 1.8)
    assert not usual.given_up
    assert beaten.given_up
    assert beaten.runs < usual.runs


def test_the_committed_searches_say_what_giving_up_saves(probe_costs: Any) -> None:
    found = probe_costs.read()
    by_beat = {
        beat_frac: [one for one in found if one.beat_frac == beat_frac]
        for beat_frac in (0.0, *probe_costs.BEATS)
    }
    assert all(by_beat.values())
    assert not any(one.given_up for one in by_beat[0.0])
    assert all(one.given_up for one in by_beat[1.8])
    assert np.mean([one.runs for one in by_beat[1.8]]) < 0.5 * np.mean([one.runs for one in by_beat[0.0]])
    assert len("\n".join(probe_costs.table(found)).splitlines()) == 2 + len(by_beat)


def row(bench: Any, beat_frac: float, beyond: float, **figures: Any) -> Any:
    figures = {"given_up": False, "runs": 1.5, "boundary_frac": 0.99, "other_frac": 1.0} | figures
    return bench.Search(rack=9000, beat_frac=beat_frac, other_beyond=beyond, **figures)


def test_a_hidden_deployment_is_what_searches_with_such_a_rate_to_beat_were(bench: Any) -> None:
    beaten = {"given_up": True, "runs": 0.2}
    of_rack = [
        row(bench, frac, beyond, **(beaten if frac else {})) for frac in (0.0, 1.2) for beyond in (1.1, 3)
    ]
    told, runs = bench.deployed(10.0, (10.2, 30.0), 10.5, 0.0, of_rack)
    assert (told.status, told.qps, runs) == ("measured", 10.5, 1.5)
    told, runs = bench.deployed(10.0, (10.2, 30.0), 10.5, 12.0, of_rack)
    assert (told.status, told.qps, runs) == ("forecast", 10.5 * 0.99, 0.2)


@pytest.mark.parametrize(
    ("alone", "beyond"), [((10.2, 14.0), 1.4), ((30.0, 10.2), 3.0), ((10.2, 900.0), 4.0)]
)
def test_a_deployment_tells_what_its_pools_could_do_alone(
    bench: Any, alone: tuple[float, float], beyond: float
) -> None:
    """Of the one that binds what the boundary says, of the other as well as searches did."""
    of_rack = [row(bench, 0.0, 1.3, other_frac=0.97), row(bench, 0.0, 3.3, other_frac=0.8)]
    told, _ = bench.deployed(10.0, alone, 10.5, 0.0, of_rack)
    rates = np.array([told.prefill_capacity_qps, told.decode_capacity_qps])
    lower = int(np.argmin(alone))
    assert rates[lower] == pytest.approx(10.5, rel=0.01)
    assert rates[1 - lower] == pytest.approx(10.5 * beyond * (0.97 if beyond < 2 else 0.8))


def test_a_deployment_that_holds_no_rate_tells_only_that_and_ends_early(bench: Any) -> None:
    of_rack = [row(bench, 0.0, 1.3), row(bench, 1.8, 1.3, given_up=True, runs=0.1)]
    told, runs = bench.deployed(0.0, (0.0, 9.0), 0.0, 12.0, of_rack)
    assert (told.status, told.qps, told.decode_capacity_qps, runs) == ("below", 0.0, None, 0.1)
    assert bench.gpu_hours(0, 0.0, runs) < bench.gpu_hours(0, 6.0, 1.0)


def test_a_method_that_gives_up_is_told_forecasts_and_never_answers_with_one(bench: Any) -> None:
    truth = bench.read_truth(bench.path_of("development", 1))
    told: list[Any] = []

    class Spy(bench.METHODS["gp"]):  # type: ignore[misc, name-defined]
        def tell(self, number: int, index: int | None, heard: Any) -> None:
            told.append(heard)
            super().tell(number, index, heard)

        def best(self, known: Any, count: int) -> list[int]:
            found: list[int] = super().best(known, count)
            assert all(known[index].status == "measured" for index in found)
            return found

    gives_up, _ = bench.run(truth, Spy, 1, 0, "gp")
    assert {one.status for one in told} >= {"measured", "forecast"}
    Spy.beats = False
    told.clear()
    goes_on, _ = bench.run(truth, Spy, 1, 0, "gp")
    assert "forecast" not in {one.status for one in told}
    assert gives_up[9].gpu_hours < goes_on[9].gpu_hours
