"""Hold trials to the GPU-hours of their study, and estimate what trials cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune.backends.base import Backend
from tune.records.attempt_limit import LIMIT_RULE, AttemptLimit, read_limit, write_limit
from tune.records.folders import StudyFolder, TrialFolder, has_ended, read_attempt
from tune.records.held_time import read_free_after
from tune.records.outcome import Outcome
from tune.spec.settings import Settings
from tune.spec.slurm_time import time_limit_s
from tune.spec.trial import TrialSpec
from tune.study.recorded_end import BudgetSpent

_EXTEND = "Everything is on record; run the same command with a larger budget to go on."

RUNS_PER_CAPACITY_SEARCH = 1.5
"""Cost of a capacity search, in runs of full length. Source: docs/benchmarks.md, the mean over 150 searches
of benchmarks/capacity.py (1.51; the median is 1.33). A sum over trials grows with the mean, not the
median."""


class Budget:
    """Divide study.max_gpu_hours among the attempts of a study; every submission asks for its share.

    A share is reserved until its attempt has ended, and the attempt is ended when it has used it up
    (tune.records.attempt_limit), so that a study never spends more, however its attempts and its driver end.
    What was spent is read from the attempts, those that left no record included: for how long each held its
    GPUs (tune.records.held_time). While that is not known yet, it counts with `idle_s` of the backend.
    """

    def __init__(self, folder: StudyFolder, settings: Settings, backend: Backend) -> None:
        self._folder, self._backend = folder, backend
        self._gpu_hours = settings.study.max_gpu_hours
        calibration = settings.cluster.calibration
        self._bring_up_s = calibration.bring_up_s if calibration else 0.0
        self._longest_s = time_limit_s(settings.cluster.time_limit) or 0.0
        self._spent: dict[Path, float] = {}
        self._reserved: dict[Path, float] = {}
        self._may_hold: dict[Path, int] = {}
        if self._gpu_hours is not None:
            self._read()

    def reserve(self, spec: TrialSpec, attempt: Path, at_once: int) -> None:
        """Write the limit of a new attempt into its folder, and reserve that.

        Up to `at_once` attempts, this one included, are to share what is left. Raises BudgetSpent where that
        is less than the attempt is expected to need.
        """
        if self._gpu_hours is None:
            return
        self._reserved.pop(attempt, None)
        left, needed = self._left(), self._forecast(spec)
        if needed > left:
            raise BudgetSpent(
                f"The budget of {self._gpu_hours:g} GPU-hours (study.max_gpu_hours) ends the study: "
                f"{self._gpu_hours - left:.1f} are spent or reserved, and the next trial needs about "
                f"{needed:.1f}. {_EXTEND}"
            )
        share = max(needed, left / at_once)
        limit_s = 3600 * share / spec.hardware.gpus - self._backend.idle_s
        write_limit(attempt, AttemptLimit(occupied_s=limit_s))
        self._reserved[attempt] = share

    def settle(self, gpus: int, attempt: Path) -> None:
        """Count what an attempt that has ended has spent on its `gpus`, instead of its share."""
        if self._gpu_hours is not None:
            self._reserved.pop(attempt, None)
            self._may_hold[attempt] = gpus

    def affords(self, spec: TrialSpec) -> bool:
        """Return whether another attempt of `spec` may be submitted."""
        return self._gpu_hours is None or self._forecast(spec) <= self._left()

    def end_of(self, outcome: Outcome) -> BudgetSpent | None:
        """Return that the budget is spent where the last attempt of a trial was ended at its limit."""
        evidence = outcome.attempts[-1].evidence if outcome.attempts else None
        if evidence is None or evidence.rule != LIMIT_RULE:
            return None
        return BudgetSpent(
            f"The budget of {self._gpu_hours or 0:g} GPU-hours (study.max_gpu_hours) ends the study: trial "
            f"{outcome.number} was {outcome.reason}. {_EXTEND}"
        )

    def _read(self) -> None:
        """Read what the attempts on record have spent; those that may still run keep their share."""
        study = self._folder.read_study()
        for raw in sorted(self._folder.root.glob("*/raw")):
            trial = TrialFolder(raw.parent)
            spec, attempts = trial.read_spec(), trial.attempts()
            gpus = spec.hardware.gpus if spec else study.gpus if study else 0
            for attempt in attempts:
                may_run = self._backend.capabilities.detached and attempt == attempts[-1]
                if may_run and not has_ended(attempt):
                    limit = read_limit(attempt)
                    limit_s = limit.occupied_s if limit else self._longest_s
                    self._reserved[attempt] = gpus * (limit_s + self._backend.idle_s) / 3600
                else:
                    self.settle(gpus, attempt)

    def _left(self) -> float:
        """Return the GPU-hours that are neither spent nor reserved."""
        assert self._gpu_hours is not None
        self._settle_all()
        return self._gpu_hours - sum(self._spent.values()) - sum(self._reserved.values())

    def _settle_all(self) -> None:
        """Count the attempts that have ended; those that may still hold their GPUs are asked again later."""
        for attempt, gpus in tuple(self._may_hold.items()):
            free_after_s, is_known = self._occupied_s(attempt)
            self._spent[attempt] = gpus * free_after_s / 3600
            if is_known:
                del self._may_hold[attempt]

    def _forecast(self, spec: TrialSpec) -> float:
        """Return the GPU-hours that an attempt is expected to need: those of the dearest so far, at least.

        A queue that drains at once is the least; a saturated trial holds its GPUs for longer.
        """
        self._settle_all()
        least_s = self._bring_up_s + spec.load.sending_s
        gpus = spec.hardware.gpus
        return max((*self._spent.values(), gpus * (least_s + self._backend.idle_s) / 3600))

    def _occupied_s(self, attempt: Path) -> tuple[float, bool]:
        """Return for how many seconds an attempt that has ended held its GPUs, and whether that is final.

        One without a record, whose driver was killed, held them while its files changed. A record without
        phases is that of the backend, of all the time that the scheduler counts.
        """
        record, free_after_s = read_attempt(attempt), read_free_after(attempt)
        if free_after_s is not None:
            return free_after_s, True
        if record is None:
            return self._changing_s(attempt), True
        is_final = record.phases is None or not self._backend.idle_s
        return record.occupied_s + (0.0 if is_final else self._backend.idle_s), is_final

    def _changing_s(self, attempt: Path) -> float:
        """Return for how many seconds the files of an attempt changed, 0 where it held no GPU."""
        if not self._backend.capabilities.real_time:
            return 0.0
        changed_s = [path.stat().st_mtime for path in attempt.rglob("*")]
        return max(changed_s) - min(changed_s) if changed_s else 0.0


def remaining_trials(
    following: int, batch: int, budget_gpu_hours: float | None, outcomes: Sequence[Outcome]
) -> int:
    """Return how many of the `following` trials the budget leaves after a batch of `batch` trials.

    Each is assumed to cost as much as the most expensive outcome so far.
    """
    if budget_gpu_hours is None:
        return following
    dearest = max((outcome.gpu_hours for outcome in outcomes), default=0.0)
    if not dearest:
        return following
    return min(following, int((budget_gpu_hours - spent_gpu_hours(outcomes)) / dearest) - batch)


def spent_gpu_hours(outcomes: Sequence[Outcome]) -> float:
    """Return the GPU-hours of `outcomes`; a trial that was proposed several times counts once."""
    return sum({outcome.trial_id: outcome.gpu_hours for outcome in outcomes}.values())


def forecast_gpu_hours(settings: Settings, n_trials: int) -> float:
    """Estimate the GPU-hours of `n_trials`, each assumed to cost as much as the composed configuration."""
    calibration, spec = settings.cluster.calibration, settings.trial_spec
    bring_up_s = calibration.bring_up_s if calibration else 0.0
    runs = RUNS_PER_CAPACITY_SEARCH if spec.load.mode == "capacity" else 1.0
    probes_s = runs * spec.load.sending_s
    return n_trials * spec.hardware.gpus * (bring_up_s + probes_s) / 3600
