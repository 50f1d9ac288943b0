"""Estimate the GPU-hours of trials, and how many trials a budget leaves."""

from __future__ import annotations

from collections.abc import Sequence

from tune.records.outcome import Outcome
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.recorded_end import BudgetSpent
from tune.study.trial_runner import TrialRequest

RUNS_PER_CAPACITY_SEARCH = 1.5
"""Cost of a capacity search, in runs of full length. Source: docs/benchmarks.md, the mean over 150 searches
of benchmarks/capacity.py (1.51; the median is 1.33). A sum over trials grows with the mean, not the
median."""


def remaining_trials(
    following: int, batch: int, budget_gpu_hours: float | None, outcomes: Sequence[Outcome]
) -> int:
    """Return how many of the `following` trials the budget leaves after a batch of `batch` trials.

    Each is assumed to cost as much as the most expensive outcome so far.
    """
    dearest = max((outcome.gpu_hours for outcome in outcomes), default=0.0)
    if budget_gpu_hours is None or not dearest:
        return following
    return min(following, int((budget_gpu_hours - spent_gpu_hours(outcomes)) / dearest) - batch)


def spent_gpu_hours(outcomes: Sequence[Outcome]) -> float:
    """Return the GPU-hours of `outcomes`; a trial that was proposed several times counts once."""
    return sum({outcome.trial_id: outcome.gpu_hours for outcome in outcomes}.values())


def check_budget(
    budget_gpu_hours: float, requests: Sequence[TrialRequest], outcomes: Sequence[Outcome], settings: Settings
) -> Sequence[TrialRequest]:
    """Return `requests`, one batch. Raises BudgetSpent when its estimate exceeds what `outcomes` leave."""
    spent, calibration = spent_gpu_hours(outcomes), settings.cluster.calibration
    bring_up_s = calibration.bring_up_s if calibration else 0.0
    dearest = max((outcome.gpu_hours for outcome in outcomes), default=0.0)
    ahead = sum(max(dearest, _least_gpu_hours(request.spec, bring_up_s)) for request in requests)
    if spent + ahead > budget_gpu_hours:
        raise BudgetSpent(
            f"The budget of {budget_gpu_hours:g} GPU-hours (study.max_gpu_hours) ends the study after "
            f"{len(outcomes)} trials: {spent:.0f} are spent and the next {len(requests)} need about "
            f"{ahead:.0f}. Everything is on record; run the same command with a larger budget to go on."
        )
    return requests


def _least_gpu_hours(spec: TrialSpec, bring_up_s: float) -> float:
    """Return the cost of a trial whose queue drains at once; a saturated one holds its GPUs for longer."""
    return spec.hardware.gpus * (bring_up_s + spec.load.expected_queries / spec.load.target_qps) / 3600


def forecast_gpu_hours(settings: Settings, n_trials: int) -> float:
    """Estimate the GPU-hours of `n_trials`, each assumed to cost as much as the composed configuration."""
    calibration, spec = settings.cluster.calibration, settings.trial_spec
    bring_up_s = calibration.bring_up_s if calibration else 0.0
    runs = RUNS_PER_CAPACITY_SEARCH if spec.load.mode == "capacity" else 1.0
    probes_s = runs * spec.load.expected_queries / spec.load.target_qps
    return n_trials * spec.hardware.gpus * (bring_up_s + probes_s) / 3600
