"""What trials cost in GPU-hours, and how many a budget leaves."""

from __future__ import annotations

from collections.abc import Sequence

from tune.errors import ResumableError
from tune.records.outcome import Outcome
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.trial_runner import TrialRequest

RUNS_OF_A_SEARCH = 1.34
"""Runs of full length that a search for the highest rate costs: the median of benchmarks/capacity.py."""


def remaining_trials(
    batch: range, n_trials: int, budget_gpu_hours: float | None, done: Sequence[Outcome]
) -> int:
    """How many trials may follow those of `batch`, each as dear as the dearest so far."""
    following, dearest = n_trials - batch.stop, max((outcome.gpu_hours for outcome in done), default=0.0)
    if budget_gpu_hours is None or not dearest:
        return following
    return min(following, int((budget_gpu_hours - spent_gpu_hours(done)) / dearest) - len(batch))


def spent_gpu_hours(done: Sequence[Outcome]) -> float:
    """Of trials `done`, each once, however often it was proposed."""
    return sum({outcome.trial_id: outcome.gpu_hours for outcome in done}.values())


def check_budget(
    budget_gpu_hours: float, jobs: Sequence[TrialRequest], done: Sequence[Outcome], settings: Settings
) -> Sequence[TrialRequest]:
    """`jobs`, a whole batch. Raises ResumableError when it would go beyond the budget."""
    spent, calibration = spent_gpu_hours(done), settings.cluster.calibration
    bring_up_s = calibration.bring_up_s if calibration else 0.0
    dearest = max((outcome.gpu_hours for outcome in done), default=0.0)
    ahead = sum(max(dearest, _least_gpu_hours(job.spec, bring_up_s)) for job in jobs)
    if spent + ahead > budget_gpu_hours:
        raise ResumableError(
            f"The budget of {budget_gpu_hours:g} GPU-hours (study.max_gpu_hours) ends the study after "
            f"{len(done)} trials: {spent:.0f} are spent and the next {len(jobs)} need about {ahead:.0f}. "
            "Everything is on record; run the same command with a larger budget to go on."
        )
    return jobs


def _least_gpu_hours(spec: TrialSpec, bring_up_s: float) -> float:
    """What a trial costs if its queue drains at once; a saturated one holds its GPUs for longer."""
    return spec.hardware.gpus * (bring_up_s + spec.load.expected_queries / spec.load.target_qps) / 3600


def forecast_gpu_hours(settings: Settings, n_trials: int) -> float:
    """About what `n_trials` will hold their GPUs for, each like the configuration as composed."""
    calibration, spec = settings.cluster.calibration, settings.trial_spec
    bring_up_s = calibration.bring_up_s if calibration else 0.0
    runs = RUNS_OF_A_SEARCH if spec.load.mode == "capacity" else 1.0
    probes_s = runs * spec.load.expected_queries / spec.load.target_qps
    return n_trials * spec.hardware.gpus * (bring_up_s + probes_s) / 3600
