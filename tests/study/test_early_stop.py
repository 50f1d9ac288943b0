"""Test that deployments clearly below the best rate or a predicted competitor are stopped early."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.studies import CountingSimulator, ignore_submission, reproducible_fields, run_composed_study

from tune.analysis.ranking import rank
from tune.config import compose_overrides
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.study.trial_requests import MIN_FOLLOWING_TRIALS, SELECTION_BIAS_FRAC

SEARCH = (
    "+sweep=pd_split",
    "load.mode=capacity",
    "search=tpe",
    "load.dataset.samples=2000",
    "load.min_duration_s=60.0",
    "load.min_queries=2000",
    "study.n_trials=6",
    "study.parallel=2",
)


FROM_A_POOR_SPLIT = (*SEARCH[:2], *SEARCH[3:], "split.prefill_workers=10", "split.decode_workers=8")


def thresholds(runs: Path) -> list[Path]:
    """Return the records of early-stop thresholds."""
    return sorted(runs.glob("*/*/raw/*/early_stop.json"))


def stopped_early(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.capacity_qps.stopped_early]


@pytest.mark.slow
def test_trial_clearly_below_the_best_stops_after_one_short_probe(
    tmp_path: Path,
) -> None:
    outcomes = run_composed_study(tmp_path, SEARCH)
    best_qps = max(outcome.target_qps for outcome in outcomes[:2] if outcome.feasible)
    threshold_qps = best_qps * (1 - SELECTION_BIAS_FRAC)
    for outcome in stopped_early(outcomes):
        assert outcome.number >= 2
        assert outcome.status == "measured"
        assert outcome.capacity_qps.early_stop is not None
        assert outcome.capacity_qps.early_stop >= threshold_qps
        assert (outcome.capacity_qps.estimate or 0.0) < outcome.capacity_qps.early_stop
        assert [probe.full for probe in outcome.probes] == [False]
    assert stopped_early(outcomes)
    assert all(outcome.probes[0].target_qps > best_qps for outcome in stopped_early(outcomes)), (
        "just above it"
    )
    assert all(
        json.loads(path.read_text())["early_stop_qps"] >= threshold_qps for path in thresholds(tmp_path)
    )
    backends = {row["number"]: row["rank"] for row in rank(outcomes)}
    assert max(backends[o.number] for o in outcomes if o.feasible) < min(
        backends[o.number] for o in stopped_early(outcomes)
    )


@pytest.mark.slow
def test_first_probe_is_not_below_the_best_at_fine_resolution(tmp_path: Path) -> None:
    outcomes = run_composed_study(tmp_path, (*SEARCH, "load.resolution=0.004", "study.n_trials=4"))
    best_qps = max(outcome.target_qps for outcome in outcomes[:2] if outcome.feasible)
    assert thresholds(tmp_path)
    for outcome in outcomes[2:]:
        assert outcome.probes[0].target_qps >= best_qps * (1 - 1e-3), "rates have four digits"


@pytest.mark.slow
def test_interrupted_study_with_early_stops_ends_the_same(tmp_path: Path) -> None:
    whole = run_composed_study(tmp_path / "whole", SEARCH)

    def interrupt(number: int) -> None:
        if number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_composed_study(tmp_path / "cut", SEARCH, CountingSimulator(compose_overrides(SEARCH), interrupt))
    assert reproducible_fields(run_composed_study(tmp_path / "cut", SEARCH)) == reproducible_fields(whole)
    assert len(thresholds(tmp_path / "cut")) == len(thresholds(tmp_path / "whole"))


@pytest.mark.slow
def test_search_without_early_stop_measures_every_trial(tmp_path: Path) -> None:
    overrides = (*SEARCH, "search.early_stop=false")
    outcomes = run_composed_study(
        tmp_path, overrides, CountingSimulator(compose_overrides(overrides), ignore_submission)
    )
    assert not stopped_early(outcomes)
    assert not thresholds(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("n_trials", "follow"), [(2, False), (2 + MIN_FOLLOWING_TRIALS, True)])
def test_predicted_competitors_stop_trials_where_enough_follow(
    tmp_path: Path, n_trials: int, follow: bool
) -> None:
    """From a split on, which is far from the best, the first proposal is one of many that are better."""
    outcomes = run_composed_study(
        tmp_path, (*FROM_A_POOR_SPLIT, "study.parallel=1", f"study.n_trials={n_trials}")
    )
    root = next(tmp_path.glob("*/study.json")).parent
    start, first, *_ = StudyFolder(root).read_proposals()
    assert not list((root / start.trial_id).glob("raw/*/early_stop.json")), "it is measured"
    threshold = json.loads(next((root / first.trial_id).glob("raw/*/early_stop.json")).read_text())
    best_qps = outcomes[0].target_qps
    assert first.early_stop_below_qps > best_qps
    wanted_qps = first.early_stop_below_qps if follow else best_qps * (1 - SELECTION_BIAS_FRAC)
    assert threshold == {"early_stop_qps": pytest.approx(wanted_qps), "expected": follow}


@pytest.mark.slow
def test_no_trial_stops_early_before_one_is_measured(tmp_path: Path) -> None:
    run_composed_study(tmp_path, (*FROM_A_POOR_SPLIT, "study.parallel=2", "study.n_trials=5"))
    root = next(tmp_path.glob("*/study.json")).parent
    proposals = StudyFolder(root).read_proposals()
    assert proposals[1].early_stop_below_qps > 0
    have_thresholds = {path.parents[2].name for path in root.glob("*/raw/*/early_stop.json")}
    assert have_thresholds.isdisjoint(proposal.trial_id for proposal in proposals[:2])
