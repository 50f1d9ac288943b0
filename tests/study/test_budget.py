"""What a budget leaves."""

from __future__ import annotations

import pytest
from support.outcomes import measured

from tune.study.budget import remaining_trials


@pytest.mark.parametrize(("budget_gpu_hours", "follow"), [(None, 6), (1000.0, 6), (220.0, 3), (90.0, -1)])
def test_budget_leaves_trials_at_the_cost_of_the_dearest(budget_gpu_hours: float | None, follow: int) -> None:
    """Of 220 GPU-hours 60 are spent, and the next takes 40."""
    done = [
        measured(number).model_copy(update={"trial_id": f"t{number}", "gpu_hours": hours})
        for number, hours in enumerate((20.0, 40.0))
    ]
    assert remaining_trials(range(2, 3), 9, budget_gpu_hours, done) == follow
    assert remaining_trials(range(2, 3), 9, budget_gpu_hours, []) == 6, "what a trial costs is not known"
