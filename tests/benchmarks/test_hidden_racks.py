"""The arithmetic of the benchmark on hidden racks."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.slow
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_what_a_pool_could_do_alone_is_found_again(truth: Any, role: str) -> None:
    committed = truth.read_truth(truth.path_of("development", 0)).pool_capacity_qps
    rack, at = truth.draw_rack(truth.FIRST_SEED["development"]), ["prefill", "decode"].index(role)
    first: dict[Any, int] = {}
    for index, one in enumerate(truth.CONFIGURATIONS):
        first.setdefault(one.pools[role], index)
    for index in list(first.values())[::20]:
        qps, spec = committed[index][at], truth.CONFIGURATIONS[index].spec
        assert truth.holds(rack, spec, 0.98 * qps, alone=role)
        assert not truth.holds(rack, spec, 1.02 * qps, alone=role)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("hidden_racks")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("hidden.tables")


def test_a_run_that_never_comes_near_counts_at_the_cap(tables: Any) -> None:
    rows = [tables.Row(0, 0, "random", n, 50.0 * n, 0.2 if n < 3 else 0.04) for n in range(1, 11)]
    assert tables.first(rows, 0.05) == (3, 150.0)
    assert tables.first(rows, 0.02) == (tables.CAP, 500.0)


def test_a_study_ends_before_the_first_deployment_that_should_gain_too_little(tables: Any) -> None:
    gains = (None, 0.2, 0.01, tables.MIN_GAIN / 2, 0.3)
    ends = [tables.Row(0, 0, "some", n, 50.0 * n, 0.1 / n, gain) for n, gain in enumerate(gains, 1)]
    goes_on = ends[:3]
    knows_nothing = [tables.Row(0, 0, "none", 1, 50.0, 0.0)]
    header, _, *found = tables.ended_table([ends, goes_on, knows_nothing]).splitlines()
    assert len(found) == 1
    cells = dict(zip(header.split(" | "), found[0].split(" | "), strict=True))
    assert cells["runs that end by study.min_gain"] == "1"
    assert (cells["deployments, median"], cells["GPU-hours, mean"]) == ("3", "150")
    assert found[0].endswith("| 100% | 0% |"), "a regret of 3.3 %"


@pytest.mark.parametrize("method", ["random", "prior", "local", "tpe", "nsga2", "gp"])
def test_every_method_ends_with_an_answer_that_it_measured(bench: Any, truth: Any, method: str) -> None:
    known = truth.read_truth(truth.path_of("development", 0))
    rows, confirmed = bench.run(known, bench.METHODS[method], 0, 0, method)
    assert confirmed.searched_gpu_hours == rows[bench.CONFIRMED_AFTER - 1].gpu_hours
    assert confirmed.confirmed_gpu_hours > 0
    assert confirmed.below_best_frac <= rows[bench.CONFIRMED_AFTER - 1].regret + 0.1
    assert [row.deployments for row in rows] == list(range(1, len(rows) + 1))
    assert all(0 <= row.regret <= 1 for row in rows)
    assert all(before.gpu_hours < after.gpu_hours for before, after in pairwise(rows))
    again, _ = bench.run(known, bench.METHODS[method], 0, 0, method)
    assert again == rows


def test_what_is_stated_depends_on_the_noise_of_the_run_and_on_its_rack(bench: Any, truth: Any) -> None:
    known = truth.read_truth(truth.path_of("development", 0)).capacity_qps
    chosen = [int(np.argmax([qps or 0.0 for qps in known])), bench.SEED]
    found = [bench.stated(known, chosen, of, 100.0) for of in ((0, 0), (0, 1), (1, 0))]
    assert len({one.below_best_frac for one in found}) == 3
    assert {one.searched_gpu_hours for one in found} == {100.0}
    assert all(-0.05 < one.below_best_frac < 0.1 for one in found)


def test_half_of_the_held_out_racks_are_hard_and_all_hold_six_queries_a_second(truth: Any) -> None:
    racks = truth.read_racks("held-out").values()
    assert len(racks) == 20
    assert min(rack.best_qps for rack in racks) >= truth.LEAST_BEST_QPS
    assert sum(not rack.is_easy for rack in racks) >= 10
