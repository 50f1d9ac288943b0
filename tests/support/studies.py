"""Run studies on the simulator inside the test's process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.base import AttemptState, Backend
from tune.backends.simulated import SimulatorBackend
from tune.config import Composition, compose_overrides, trial_overrides
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import write_attempt
from tune.records.outcome import Outcome
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.loop import open_study, run_study


class CountingSimulator(Backend):
    """Run attempts on the simulator and count the submissions.

    `before` is called with the number of each submission before it is made.
    """

    def __init__(self, composition: Composition, before: Callable[[int], None], processes: int = 1) -> None:
        calibration = composition.settings.cluster.calibration
        assert calibration is not None
        self._simulator: Backend = SimulatorBackend(calibration, processes)
        self.capabilities = self._simulator.capabilities
        self._before = before
        self.submitted = 0

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        self._before(self.submitted)
        self.submitted += 1
        return self._simulator.submit(spec, attempt)

    def poll(self, handle: str) -> AttemptState:
        return self._simulator.poll(handle)

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
                held_s=36.0,
                error="node gb07 is down",
                cause="infrastructure",
            ),
        )
        return str(attempt)

    def poll(self, handle: str) -> AttemptState:
        return "ended"


def ignore_submission(number: int) -> None:
    """Do nothing before a submission."""


def run_composed_study(
    runs: Path,
    overrides: tuple[str, ...],
    backend: CountingSimulator | None = None,
    observed_numbers: list[int] | None = None,
) -> list[Outcome]:
    """Run the study that `overrides` compose in a folder below `runs` and return its outcomes.

    The numbers of its trials are appended to `observed_numbers` in the order in which the study reports them.
    """
    composition = compose_overrides(overrides)
    settings = composition.settings
    record = study_record(settings, composition.study_name, overrides)
    numbers: list[int] = [] if observed_numbers is None else observed_numbers
    with (
        open_study(runs / composition.study_name, record) as folder,
        backend or CountingSimulator(composition, ignore_submission) as running,
    ):
        return run_study(
            folder,
            settings,
            running,
            lambda spec: trial_overrides(spec, settings),
            lambda outcome: numbers.append(outcome.number),
        )


def reproducible_fields(outcomes: list[Outcome]) -> list[object]:
    """Return every field of the outcomes that must not change from run to run."""
    changing = {"attempts": True, "wall_s": True, "probes": {"__all__": {"raw"}}}
    return [outcome.model_dump(exclude=changing) for outcome in outcomes]
