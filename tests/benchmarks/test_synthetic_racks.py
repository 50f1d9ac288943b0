"""Test the arithmetic and the data of the benchmark on synthetic racks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune.records.posterior_summary import Interval

pytestmark = pytest.mark.slow  # the space of configurations takes seconds to bind

Import = Callable[[str], Any]


@pytest.fixture
def truth(benchmark_module: Import) -> Any:
    return benchmark_module("synthetic_racks.true_capacities")


@pytest.fixture
def stored(benchmark_module: Import) -> Any:
    return benchmark_module("synthetic_racks.capacity_tables")


@pytest.fixture
def tables(benchmark_module: Import) -> Any:
    return benchmark_module("synthetic_racks.result_tables")


@pytest.fixture
def bench(benchmark_module: Import) -> Any:
    return benchmark_module("search_synthetic_racks")


@pytest.mark.parametrize("guess", [0.6, 9.0, 11.9, 12.1, 50.0])
def test_bisection_finds_the_capacity_from_any_guess(truth: Any, guess: float) -> None:
    assert truth.find_capacity(lambda qps: qps <= 12, guess, 1.003) == pytest.approx(12, rel=0.0016)


def test_a_rack_that_holds_nothing_has_no_capacity(truth: Any) -> None:
    assert truth.find_capacity(lambda qps: False, 12.0, 1.01) == 0


def test_a_committed_capacity_is_reproduced(truth: Any, stored: Any) -> None:
    committed = stored.read_set("development").capacities[0].capacity_qps
    rack = truth.draw_rack(truth.FIRST_SEED["development"])
    assert {index for index, qps in enumerate(committed) if qps is None} == rack.crashes()
    best = max(range(len(committed)), key=lambda index: committed[index] or 0.0)
    configuration = truth.CONFIGURATIONS[best]
    sharpened = truth.sharpened_qps(rack, configuration, committed[best])
    assert sharpened == pytest.approx(committed[best], rel=0.004)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_committed_pool_capacity_is_reproduced(truth: Any, stored: Any, role: str) -> None:
    committed = stored.read_set("development").capacities[0].pool_capacity_qps
    rack, column = truth.draw_rack(truth.FIRST_SEED["development"]), ["prefill", "decode"].index(role)
    first: dict[Any, int] = {}
    for index, configuration in enumerate(truth.CONFIGURATIONS):
        first.setdefault(configuration.pools[role], index)
    for index in list(first.values())[::20]:
        qps, spec = committed[index][column], truth.CONFIGURATIONS[index].spec
        assert truth.holds(rack, spec, 0.98 * qps, pool=role)
        assert not truth.holds(rack, spec, 1.02 * qps, pool=role)


def test_a_run_that_never_gets_near_counts_at_the_cap(tables: Any) -> None:
    rows = [tables.Row(0, 0, "random", n, 50.0 * n, 0.2 if n < 3 else 0.04) for n in range(1, 11)]
    assert tables.first(rows, 0.05) == (3, 150.0)
    assert tables.first(rows, 0.02) == (tables.CAP, 500.0)


def test_a_study_ends_before_the_second_deployment_of_too_little_gain(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MIN_OBSERVATIONS", 2)
    gains = (None, 0.2, tables.MIN_GAIN / 2, tables.MIN_GAIN / 2, 0.3)
    ends = [tables.Row(0, 0, "predicts", n, 50.0 * n, 0.1 / n, gain) for n, gain in enumerate(gains, 1)]
    goes_on = ends[:3]
    predicts_nothing = [tables.Row(0, 0, "none", 1, 50.0, 0.0)]
    runs = [tables.summarise_run(rows) for rows in (ends, goes_on, predicts_nothing)]
    header, _, *lines = tables.ended_table(runs).splitlines()
    assert len(lines) == 1
    cells = dict(zip(header.split(" | "), lines[0].split(" | "), strict=True))
    assert cells["runs that end by study.min_gain"] == "1"
    assert (cells["deployments, median"], cells["GPU-hours, mean"]) == ("3", "150")
    assert lines[0].endswith("| 100% | 0% |"), "a regret of 3.3 %"


@pytest.mark.parametrize("method", ["random", "prior", "local", "tpe", "nsga2", "gp"])
def test_every_method_answers_with_a_measured_configuration(bench: Any, stored: Any, method: str) -> None:
    known = stored.read_set("development").capacities[0]
    rows, confirmed = bench.run(known, bench.METHODS[method], 0, 0, method)
    assert confirmed.searched_gpu_hours == rows[bench.CONFIRMED_AFTER - 1].gpu_hours
    assert confirmed.confirmed_gpu_hours > 0
    assert confirmed.below_best_frac <= rows[bench.CONFIRMED_AFTER - 1].regret + 0.1
    assert [row.deployments for row in rows] == list(range(1, len(rows) + 1))
    assert all(0 <= row.regret <= 1 for row in rows)
    assert all(before.gpu_hours < after.gpu_hours for before, after in pairwise(rows))
    again, _ = bench.run(known, bench.METHODS[method], 0, 0, method)
    assert again == rows


@pytest.mark.parametrize(("low_qps", "inside"), [(0.01, True), (400.0, False)])
def test_intervals_are_compared_with_what_each_deployment_measures(
    bench: Any, stored: Any, tables: Any, low_qps: float, inside: bool
) -> None:
    def make(seed: int) -> Any:
        method = bench.METHODS["prior"](seed)
        method.interval = Interval(low=low_qps, median=low_qps, high=500.0)
        return method

    known = stored.read_set("development").capacities[0]
    rows, _ = bench.run(known, make, 0, 0, "predicts")
    summary = tables.summarise_run(rows)
    first = rows[: tables.INTERVALS]
    crashed = sum(row.inside is None for row in first)
    assert {row.inside for row in first} == ({inside, None} if crashed else {inside})
    assert (summary.intervals, summary.inside) == (len(first) - crashed, inside * summary.intervals)
    *_, line = tables.interval_table([summary, summary]).splitlines()
    assert line == f"| predicts | {2 * summary.intervals} | {100 * inside:.1f}% |"


def test_a_guaranteed_rate_depends_on_noise_and_rack(bench: Any, stored: Any) -> None:
    known = stored.read_set("development").capacities[0].capacity_qps
    chosen = [int(np.argmax([qps or 0.0 for qps in known])), bench.SEED]
    rates = [bench.guarantee(known, chosen, seeds, 100.0) for seeds in ((0, 0), (0, 1), (1, 0))]
    assert len({rate.below_best_frac for rate in rates}) == 3
    assert {rate.searched_gpu_hours for rate in rates} == {100.0}
    assert all(-0.05 < rate.below_best_frac < 0.1 for rate in rates)


def test_half_of_the_held_out_racks_are_hard_and_all_hold_six_qps(truth: Any, stored: Any) -> None:
    racks = stored.read_set("held_out").summaries.values()
    assert len(racks) == 20
    assert min(rack.best_qps for rack in racks) >= truth.MIN_BEST_QPS
    assert sum(not rack.is_easy for rack in racks) >= 10


def test_the_committed_sets_are_complete(stored: Any) -> None:
    sets = {name: stored.read_set(name) for name in stored.SETS}
    assert {name: len(racks.capacities) for name, racks in sets.items()} == {
        "development": 80,
        "held_out": 20,
        "prior": 1,
    }
    for racks in sets.values():
        for table in racks.capacities.values():
            assert len(table.capacity_qps) == len(table.pool_capacity_qps) == len(stored.CONFIGURATIONS)
        for number, summary in racks.summaries.items():
            again = stored.summarise(number, summary.seed, racks.capacities[number].capacity_qps)
            assert again.best_qps == summary.best_qps
            assert again[4:] == pytest.approx(summary[4:], abs=3e-4), "from rates of three decimals"


def test_a_set_is_written_as_it_was_read(stored: Any, tmp_path: Path) -> None:
    held_out = stored.read_set("held_out")
    stored.write_set("held_out", held_out, tmp_path)
    assert stored.read_set("held_out", tmp_path) == held_out


def test_every_data_file_has_its_checksum(stored: Any) -> None:
    files = [path for path in stored.DATA.iterdir() if path.name not in {"README.md", "SHA256SUMS"}]
    assert stored.read_checksums() == {path.name: stored.checksum(path) for path in files}


def test_a_damaged_set_is_refused(stored: Any, tmp_path: Path) -> None:
    for name in ("prior.npz", "SHA256SUMS"):
        shutil.copy(stored.DATA / name, tmp_path)
    with (tmp_path / "prior.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="expected the checksum in"):
        stored.read_set("prior", tmp_path)


def test_the_published_tables_follow_from_the_committed_runs(tables: Any, root: Path) -> None:
    published = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    runs = tables.read_runs()
    assert len(runs) == 900
    for table in (tables.regret_table(runs), tables.ended_table(runs)):
        for line in table.splitlines()[2:]:
            assert line in published
    later = tables.read_runs(tables.DATA / "held_out_runs_2026-12-01.csv")
    (regret,), (ended,) = (text(later).splitlines()[2:] for text in (tables.regret_table, tables.ended_table))
    assert regret.replace("| surrogate |", "| surrogate of 0.2.0, 2026-11-30 and 2026-12-01 |") in published
    assert ended.replace("| surrogate |", "| surrogate of 0.2.0, by the rule of studies |") in published


def test_runs_are_written_as_they_were_read(tables: Any, tmp_path: Path) -> None:
    tables.write_runs(tmp_path / "runs.csv", tables.read_runs())
    assert (tmp_path / "runs.csv").read_text() == tables.PUBLISHED_RUNS.read_text()
