"""Test ranking.csv: every trial with its verdict, in the documented columns, with all digits."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from support.synthetic_search import searched_trial
from support.synthetic_study import mixed, study, synthetic_trial, unmeasured

from tune.analysis.ranking import rank
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.page import write_report
from tune.report.ranking_csv import csv_columns

BASE = {"prefill": {"tensor_parallel_size": 2}, "decode": {"tensor_parallel_size": 8}}


def rows_of(folder: Path, record: StudyRecord, outcomes: list[Outcome]) -> list[dict[str, str]]:
    write_report(folder, record, outcomes)
    with (folder / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_a_row_ranked_ones_first(tmp_path: Path) -> None:
    outcomes = mixed(60)
    rows = rows_of(tmp_path, study(), outcomes)
    assert len(rows) == 60
    ranked = [row for row in rows if row["rank"]]
    assert [row["trial_id"] for row in ranked] == [row["trial_id"] for row in rank(outcomes)]
    assert {row["verdict"] for row in rows[len(ranked) :]} == {"infeasible", "failed"}
    assert all(row["reason"] for row in rows[len(ranked) :])


def test_row_holds_all_digits_and_gives_back_its_overrides(tmp_path: Path) -> None:
    outcome = synthetic_trial(3, prefill=13, tps_gpu=139.23456789012)
    (row,) = rows_of(tmp_path, study(base=BASE), [outcome])
    assert float(row["output_tps_per_gpu"]) == outcome.output_tps_per_gpu
    assert outcome.tpot_s
    assert float(row["tokens_per_s_per_user"]) == 1 / outcome.tpot_s.p50
    assert float(row["tpot_mean_s"]) == outcome.tpot_s.mean
    assert (row["split"], row["parallelism"]) == ("13P5D", "TP2/TP8")
    assert (row["gpu_hours"], row["attempts"], row["param.prefill_workers"]) == ("49.2", "1", "13")
    assert shlex.split(row["overrides"]) == outcome.provenance["overrides"]


def test_capacity_search_gives_its_rates(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, study(), [searched_trial(0)])
    rates = [row[name] for name in ("verified_qps", "missed_qps", "capacity_qps", "prefill_capacity_qps")]
    assert rates == ["16.05", "16.3", "16.2", ""]


def test_study_without_trials_has_a_head_only(tmp_path: Path) -> None:
    write_report(tmp_path, study(), [])
    head = (tmp_path / "ranking.csv").read_text(encoding="utf-8").splitlines()
    assert head == [",".join([*(column.name for column in csv_columns(study())), "overrides"])]


def test_columns_of_old_files_are_still_there(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, study(), [unmeasured(0, "failed", "gone")])
    assert list(row)[:4] == ["rank", "trial_id", "number", "feasible"]
    assert {
        *("output_tps_per_gpu", "ttft_p99_s", "tpot_p99_s", "target_qps", "shuffles", "slo_met_shuffles"),
        *("ttft_p99_shuffles_mean_s", "tpot_p99_shuffles_max_s", "bottleneck", "overrides"),
    } <= set(row)
