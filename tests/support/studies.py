"""Run studies on the simulator inside the test's process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.activity import Activity
from tune.backends.base import AttemptState, Backend
from tune.backends.simulated import SimulatorBackend
from tune.config import ComposedConfig, compose_overrides, trial_overrides
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import write_attempt
from tune.records.outcome import Outcome
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.listener import SILENT, StudyListener
from tune.study.loop import open_study, run_study


class CountingSimulator(Backend):
    """Run attempts on the simulator and count the submissions.

    `before` is called with the number of each submission before it is made.
    """

    def __init__(self, composition: ComposedConfig, before: Callable[[int], None], workers: int = 0) -> None:
        calibration = composition.settings.cluster.calibration
        assert calibration is not None
        self._simulator: Backend = SimulatorBackend(calibration, workers)
        self.capabilities = self._simulator.capabilities
        self._before = before
        self.submitted = 0

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        self._before(self.submitted)
        self.submitted += 1
        return self._simulator.submit(spec, attempt)

    def poll(self, handle: str) -> AttemptState:
        return self._simulator.poll(handle)

    def activities(self, handle: str) -> Sequence[Activity]:
        return self._simulator.activities(handle)

    def cancel(self, handle: str) -> None:
        self._simulator.cancel(handle)

    def __enter__(self) -> Self:
        self._simulator.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._simulator.__exit__(kind, error, trace)


class FailingBackend(CountingSimulator):
    """Record a failure of the infrastructure for every attempt."""

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        self.submitted += 1
        stamp = "2026-01-01T00:00:00+00:00"
        write_attempt(
            attempt,
            AttemptRecord(
                started_at=stamp,
                ended_at=stamp,
                occupied_s=36.0,
                error="node gb07 is down",
                cause="infrastructure",
            ),
        )
        return str(attempt)

    def poll(self, handle: str) -> AttemptState:
        return "ended"


class Recording(StudyListener):
    """Keep what a study tells, in its order."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.steps: list[tuple[int, str]] = []

    def prepared(self, done: int, total: int) -> None:
        self.steps.append((-1, f"prepared {done} of {total}"))

    def trial_begun(self, number: int, spec: TrialSpec) -> None:
        self.steps.append((number, f"{spec.split.label} begun"))

    def trial_does(self, number: int, activity: Activity) -> None:
        self.steps.append((number, activity.text))

    def recorded(self, outcome: Outcome) -> None:
        self.steps.append((outcome.number, "recorded"))
        self.outcomes.append(outcome)


def ignore_submission(number: int) -> None:
    """Do nothing before a submission."""


def run_composed_study(
    runs: Path,
    overrides: tuple[str, ...],
    backend: CountingSimulator | None = None,
    listener: StudyListener = SILENT,
) -> list[Outcome]:
    """Run the study that `overrides` compose in a folder below `runs` and return its outcomes."""
    composition = compose_overrides(overrides)
    settings = composition.settings
    record = study_record(settings, composition.study_name, overrides)
    with (
        open_study(runs / composition.study_name, record) as folder,
        backend or CountingSimulator(composition, ignore_submission) as running,
    ):
        return run_study(folder, settings, running, lambda spec: trial_overrides(spec, settings), listener)


def reproducible_fields(outcomes: list[Outcome]) -> list[object]:
    """Return every field of the outcomes that must not change from run to run."""
    changing = {"attempts": True, "wall_s": True, "probes": {"__all__": {"raw"}}}
    return [outcome.model_dump(exclude=changing) for outcome in outcomes]
