"""Follow a study while it runs: what is done, what each trial does, and how long the rest may take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tune.backends.activity import Activity
from tune.cli.output import print_progress
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.spec.kind import kind_of
from tune.spec.trial import TrialSpec
from tune.study.listener import StudyListener

MIN_TRIALS_FOR_REMAINING = 2
"""Number of trials that this process has to have ended before it states how long the rest takes."""

MIN_POOLS_FOR_REMAINING, MAX_POOLS_OF_PACE = 2, 8
"""Numbers of prefill pools whose pace states the time to the first trial: so many at least, and the last so
many at most, as pools of earlier studies take no time."""

WAITS = "waits"
"""Step of a trial whose backend reports none yet."""


@dataclass
class RunningTrial:
    """Hold what is known of a trial that runs; times are those of the clock of its StudyProgress."""

    number: int
    configuration: str
    begun_s: float
    step: str = WAITS
    held_qps: float | None = None
    missed_qps: float | None = None

    @property
    def known(self) -> str:
        """Return the highest rate that held so far and the lowest that missed, queries/s."""
        held = None if self.held_qps is None else f"held {self.held_qps:g}"
        missed = None if self.missed_qps is None else f"missed {self.missed_qps:g}"
        return ", ".join(part for part in (held, missed) if part)

    def does(self, activity: Activity) -> None:
        """Learn a step of the trial."""
        self.step = activity.text
        if activity.verdict == "held":
            self.held_qps = max(self.held_qps or 0.0, activity.target_qps)
        elif activity.verdict == "missed":
            self.missed_qps = min(self.missed_qps or activity.target_qps, activity.target_qps)


class StudyProgress(StudyListener):
    """Collect the progress of a study of `n_trials`; a subclass shows it whenever `_changed` is called."""

    def __init__(
        self,
        n_trials: int,
        name: str,
        on_record: Iterable[int] = (),
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = print_progress,
        *,
        may_end_early: bool = False,
    ) -> None:
        """Begin with the trials whose numbers are `on_record`; `clock` returns seconds, `say` prints a line.

        `may_end_early` says that the search may end before `n_trials`.
        """
        self.n_trials, self.name, self.may_end_early = n_trials, name, may_end_early
        self.best: Outcome | None = None
        self.running: dict[int, RunningTrial] = {}
        self.preparation: tuple[int, int] | None = None
        self._clock, self._started_s, self._say = clock, clock(), say
        self._first_trial_s: float | None = None
        self._pools: deque[tuple[int, float]] = deque(maxlen=MAX_POOLS_OF_PACE + 1)
        self._done = set(on_record)
        self._ended: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""

    @property
    def done(self) -> int:
        """Return the number of trials that have an outcome."""
        return len(self._done)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since this process began to follow the study."""
        return self._clock() - self._started_s

    @property
    def remaining_s(self) -> float | None:
        """Return the seconds that the other trials take at the pace of those that this process has ended.

        None before MIN_TRIALS_FOR_REMAINING trials have ended.
        """
        if self._first_trial_s is None or len(self._ended) < MIN_TRIALS_FOR_REMAINING:
            return None
        pace_s = (self._clock() - self._first_trial_s) / len(self._ended)
        return pace_s * (self.n_trials - self.done)

    @property
    def preparation_remaining_s(self) -> float | None:
        """Return the seconds that the other prefill pools take at the pace of the last ones.

        None outside the preparation, and before MIN_POOLS_FOR_REMAINING pools after the first.
        """
        if self.preparation is None:
            return None
        (done, total), (first, first_s) = self.preparation, self._pools[0]
        if done - first < MIN_POOLS_FOR_REMAINING:
            return None
        return (self._clock() - first_s) / (done - first) * (total - done)

    def running_s(self, trial: RunningTrial) -> float:
        """Return the seconds since a trial began."""
        return self._clock() - trial.begun_s

    def prepared(self, done: int, total: int) -> None:
        """Learn how far the preparation of the search is."""
        self._pools.append((done, self._clock()))
        self.preparation = (done, total) if done < total else None
        self._changed()

    def trial_begun(self, number: int, spec: TrialSpec) -> None:
        """Learn that a trial begins."""
        self.preparation = None
        now_s = self._clock()
        self._first_trial_s = now_s if self._first_trial_s is None else self._first_trial_s
        self.running[number] = RunningTrial(number, _configuration(spec), now_s)
        self._changed()

    def trial_does(self, number: int, activity: Activity) -> None:
        """Learn what a trial does."""
        if number in self.running:
            self.running[number].does(activity)
            self._changed()

    def trial_ended(self, outcome: Outcome) -> None:
        """Learn that a trial has ended."""
        self.running.pop(outcome.number, None)
        self._ended.add(outcome.number)
        self._done.add(outcome.number)
        self._learn(outcome)

    def trial_repeated(self, outcome: Outcome) -> None:
        """Learn that a trial runs again, and say why."""
        self.running.pop(outcome.number, None)
        self._say(f"trial {outcome.number} runs again: {(outcome.reason or '').splitlines()[0]}")

    def recorded(self, outcome: Outcome) -> None:
        """Learn an outcome that the search observes."""
        self._done.add(outcome.number)
        self._learn(outcome)

    def _learn(self, outcome: Outcome) -> None:
        """Keep the best outcome."""
        best = (self.best and self.best.output_tps_per_gpu) or 0.0
        if outcome.feasible and (outcome.output_tps_per_gpu or 0.0) > best:
            self.best = outcome
        self._changed()

    def _changed(self) -> None:
        """Show the progress; a subclass does."""


def numbers_on_record(folder: StudyFolder) -> set[int]:
    """Return the numbers of the trials that need no further attempt."""
    ended = {outcome.trial_id for outcome in folder.outcomes() if outcome.status != "failed"}
    return {proposal.number for proposal in folder.read_proposals() if proposal.trial_id in ended}


def duration(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def best_text(outcome: Outcome | None) -> str:
    """Return throughput and number of the best trial so far; empty without one."""
    if outcome is None:
        return ""
    return f"best {outcome.output_tps_per_gpu:.1f} tokens/s/GPU, trial {outcome.number}"


def times_text(progress: StudyProgress) -> str:
    """Return the time that has passed and, where it is known, the time that the rest takes.

    That is the time to the first trial while the search prepares, then the time to the last trial.
    """
    passed = f"{duration(progress.elapsed_s)} passed"
    if progress.preparation:
        first_s = progress.preparation_remaining_s
        return passed if first_s is None else f"{passed}, about {duration(first_s)} to the first trial"
    if not progress.remaining_s:
        return passed
    about = "at most about" if progress.may_end_early else "about"
    return f"{passed}, {about} {duration(progress.remaining_s)} remain"


def _configuration(spec: TrialSpec) -> str:
    """Return split and parallelism of a trial in a few words, and its load unless a search chooses rates."""
    load = "" if spec.load.mode == "capacity" else f", {spec.load.text}"
    return f"{kind_of(spec)}{load}"
