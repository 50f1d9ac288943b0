"""GPU-hours: what trials are expected to cost, and what a budget leaves."""

from __future__ import annotations

import pytest
from support.composed import composed
from support.outcomes import measured

from tune.study.budget import RUNS_PER_CAPACITY_SEARCH, forecast_gpu_hours, remaining_trials
from tune.study.confirmation_candidates import ConfirmationCandidate


@pytest.mark.parametrize(("budget_gpu_hours", "follow"), [(None, 6), (1000.0, 6), (220.0, 3), (90.0, -1)])
def test_budget_leaves_trials_at_the_cost_of_the_dearest(budget_gpu_hours: float | None, follow: int) -> None:
    """Of 220 GPU-hours 60 are spent, and the next takes 40."""
    outcomes = [
        measured(number).model_copy(update={"trial_id": f"t{number}", "gpu_hours": hours})
        for number, hours in enumerate((20.0, 40.0))
    ]
    assert remaining_trials(6, 1, budget_gpu_hours, outcomes) == follow
    assert remaining_trials(6, 1, budget_gpu_hours, []) == 6, "what a trial costs is not known"


@pytest.mark.slow
def test_study_and_confirmation_price_a_capacity_search_alike() -> None:
    fixed = composed("cluster.calibration.bring_up_s=0")
    capacity = composed("cluster.calibration.bring_up_s=0", "load.mode=capacity")
    before_study = forecast_gpu_hours(capacity, 1) / forecast_gpu_hours(fixed, 1)
    trial = measured(0)
    before_confirmation = ConfirmationCandidate(trial, ()).gpu_hours / trial.attempts[-1].gpu_hours
    assert before_study == pytest.approx(RUNS_PER_CAPACITY_SEARCH)
    assert before_confirmation == pytest.approx(RUNS_PER_CAPACITY_SEARCH)
