"""Test that a corrected sweep goes on with the trials on record that are points of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.studies import CountingSimulator, ignore_submission, run_composed_study

from tune.config import compose_overrides
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.study.corrected_sweep import describe_correction

pytestmark = pytest.mark.slow

WORKERS = "sweep.space.prefill_workers"
TOO_LARGE = (
    "+sweep=parallelism",
    *("~sweep.space.target_qps", "~sweep.space.decode_tensor_parallel_size", "study.name=large"),
    *("sweep.space.prefill_tensor_parallel_size.values=[8]", "search=grid", "study.n_trials=12"),
)
"""A sweep whose points all break a rule, so that its trials take no time; the baseline is none of them."""

NO_BASELINE = (*TOO_LARGE, "study.baseline=false")


def swept(runs: Path, low: int, high: int, *words: str) -> list[int]:
    """Run the sweep from `low` to `high` workers; return the workers of its trials in order of number."""
    words = (*NO_BASELINE, f"{WORKERS}.low={low}", f"{WORKERS}.high={high}", *words)
    return [workers(outcome) for outcome in run_composed_study(runs, words)]


def workers(outcome: Outcome) -> int:
    return int(outcome.provenance["params"]["prefill_workers"])


def folder_of(runs: Path) -> StudyFolder:
    return StudyFolder(runs / "large")


def test_a_wider_range_adds_to_the_trials_on_record(tmp_path: Path) -> None:
    assert swept(tmp_path, 20, 22) == [20, 21, 22]
    before = folder_of(tmp_path).read_study()
    assert swept(tmp_path, 18, 24) == [20, 21, 22, 18, 19, 23, 24]
    said = describe_correction(before, folder_of(tmp_path))
    assert said is not None
    assert "0 are left aside" in said
    numbers = [outcome.number for outcome in folder_of(tmp_path).outcomes()]
    assert numbers == [0, 1, 2, 3, 4, 5, 6]
    assert swept(tmp_path, 18, 24) == [20, 21, 22, 18, 19, 23, 24], "the same command again"


def test_trials_that_are_no_points_are_left_aside_and_come_back(tmp_path: Path) -> None:
    swept(tmp_path, 20, 23)
    before = folder_of(tmp_path).read_study()
    lines = (tmp_path / "large" / "proposals.jsonl").read_text()
    assert swept(tmp_path, 22, 24) == [22, 23, 24]
    said = describe_correction(before, folder_of(tmp_path))
    assert said is not None
    assert said.startswith(
        "The sweep has changed: 3 trials on record are points of it and count, 2 are left aside"
    )
    assert [workers(outcome) for outcome in folder_of(tmp_path).outcomes()] == [22, 23, 24]
    assert (tmp_path / "large" / "proposals.jsonl").read_text().startswith(lines)
    assert len(list((tmp_path / "large").glob("*/outcome.json"))) == 5, "nothing is deleted"
    assert swept(tmp_path, 20, 24) == [20, 21, 22, 23, 24]
    assert [outcome.number for outcome in folder_of(tmp_path).outcomes()] == [0, 1, 2, 3, 4]


def test_a_new_dimension_keeps_the_trials_that_have_its_value(tmp_path: Path) -> None:
    added = "+sweep.space.decode_tp={kind: choice, path: decode.tensor_parallel_size, values: [4, 8]}"
    swept(tmp_path, 20, 21)
    assert swept(tmp_path, 20, 21, added) == [20, 21, 20, 21]
    points = [outcome.provenance["params"] for outcome in folder_of(tmp_path).outcomes()]
    assert [point["decode_tp"] for point in points] == [4, 4, 8, 8]
    assert swept(tmp_path, 20, 21) == [20, 21], "those with another value are no points"
    assert all("decode_tp" not in o.provenance["params"] for o in folder_of(tmp_path).outcomes())


def test_another_order_of_the_dimensions_is_the_same_question(tmp_path: Path) -> None:
    swept(tmp_path, 20, 21)
    turned = (
        "~sweep.space.prefill_workers",
        f"+{WORKERS}={{kind: int, path: split.prefill_workers, low: 20, high: 22}}",
    )
    outcomes = run_composed_study(tmp_path, (*NO_BASELINE, *turned))
    assert [workers(outcome) for outcome in outcomes] == [20, 21, 22]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_every_search_goes_on_with_what_it_keeps(tmp_path: Path, search: str) -> None:
    first = swept(tmp_path, 20, 22, f"search={search}")
    assert sorted(set(first)) == [20, 21, 22]
    assert set(swept(tmp_path, 21, 24, f"search={search}", "study.n_trials=60")) == {21, 22, 23, 24}


def test_the_baseline_stays_and_a_changed_question_is_refused(tmp_path: Path) -> None:
    swept(tmp_path, 20, 21)
    record = (tmp_path / "large" / "study.json").read_text()
    with pytest.raises(ConfigurationError, match=r"slo.ttft_p99_s: the study has 4.5, this command says 6.0"):
        swept(tmp_path, 20, 24, "slo.ttft_p99_s=6.0")
    assert (tmp_path / "large" / "study.json").read_text() == record


def test_another_range_of_rates_keeps_the_trials_of_a_capacity_study(tmp_path: Path) -> None:
    words = [word for word in NO_BASELINE if word != "~sweep.space.target_qps"]
    words += ["load.mode=capacity", f"{WORKERS}.low=20", f"{WORKERS}.high=22"]
    first = run_composed_study(tmp_path, words)
    second = run_composed_study(tmp_path, [*words, "sweep.space.target_qps.high=39.0", f"{WORKERS}.high=23"])
    assert second[:3] == first
    assert len(second) == 4


def test_measured_trials_are_kept_and_not_run_again(tmp_path: Path) -> None:
    words = ("+sweep=target_qps", "load.min_duration_s=120.0", "load.concatenate_permutation=false")
    words = (*words, "study.parallel=2", "sweep.space.target_qps.low=14.0", "study.n_trials=4")
    first = run_composed_study(tmp_path, (*words, "sweep.space.target_qps.high=15.0"))
    again = CountingSimulator(compose_overrides(words), ignore_submission)
    changed = (*words, "sweep.space.target_qps.high=16.0", "study.n_trials=6")
    second = run_composed_study(tmp_path, changed, again)
    assert [outcome.target_qps for outcome in second] == [15.75, 14.0, 14.5, 15.0, 15.5, 16.0]
    assert second[:4] == first
    assert again.submitted == 2


def test_what_is_left_aside_counts_for_the_budget(tmp_path: Path) -> None:
    words = ("+sweep=target_qps", "load.min_duration_s=120.0", "load.concatenate_permutation=false")
    words = (*words, "study.baseline=false", "study.parallel=1", "study.n_trials=2", "study.name=large")
    run_composed_study(tmp_path, (*words, "sweep.space.target_qps.low=14.0"))
    spent = sum(outcome.gpu_hours for outcome in folder_of(tmp_path).outcomes())
    changed = (*words, "sweep.space.target_qps.low=18.0", f"study.max_gpu_hours={spent + 1:.0f}")
    with pytest.raises(ResumableError, match="The budget"):
        run_composed_study(tmp_path, changed)
    assert folder_of(tmp_path).outcomes() == ()
    assert len(folder_of(tmp_path).outcomes(aside=True)) == 2
