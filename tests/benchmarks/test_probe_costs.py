"""What the capacity search spends, as the benchmark on hidden racks draws it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune.config import compose_overrides

SHORT = ("load.dataset.samples=1000", "load.min_duration_s=30.0", "load.min_queries=1000")


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
    settings = compose_overrides(SHORT).settings
    usual, beaten = probe_costs.searches((settings.trial_spec, settings.cluster.calibration))
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


def test_a_hidden_deployment_costs_what_searches_with_such_a_rate_to_beat_did(bench: Any) -> None:
    draws = np.random.default_rng(0)
    alone = [bench.searched(10.0, 0.0, draws) for _ in range(20)]
    beaten = [bench.searched(10.0, 17.0, draws) for _ in range(20)]
    assert {one.beat_frac for one in alone} == {0.0}
    assert {one.beat_frac for one in beaten} == {1.8}


def test_a_method_that_gives_up_is_told_forecasts_and_never_answers_with_one(bench: Any) -> None:
    truth = bench.read(bench.path_of("development", 1))
    told: list[Any] = []

    class Spy(bench.METHODS["gp"]):  # type: ignore[misc, name-defined]
        def tell(self, number: int, index: int | None, heard: Any) -> None:
            told.append(heard)
            super().tell(number, index, heard)

        def answer(self, known: Any) -> int:
            index: int = super().answer(known)
            assert known[index].status == "measured"
            return index

    gives_up, _ = bench.run(truth, Spy, 1, 0, "gp")
    assert {one.status for one in told} >= {"measured", "forecast"}
    Spy.beats = False
    told.clear()
    goes_on, _ = bench.run(truth, Spy, 1, 0, "gp")
    assert "forecast" not in {one.status for one in told}
    assert gives_up[9].gpu_hours < goes_on[9].gpu_hours
