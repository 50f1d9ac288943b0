"""Show the progress of long actions on stderr: drawn on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tune.cli.output import print_progress
from tune.cli.study_progress import StudyProgress, best_text, duration, times_text

LINE_INTERVAL_S, QUIET_S = 10.0, 2.0
"""Least time between two plain lines of progress, and before the first of a task, in seconds."""


def study_progress(
    n_trials: int, name: str, on_record: Iterable[int] = (), *, may_end_early: bool = False
) -> StudyProgress:
    """Return the display of a study.

    Parameters
    ----------
    n_trials
        Planned trials.
    name
        Name of the study.
    on_record
        Numbers of the trials that are done.
    may_end_early
        Whether the search may end before `n_trials`.

    Returns
    -------
    StudyProgress
        The table of a terminal, or plain lines elsewhere.
    """
    if draws_on_terminal():
        from tune.cli.live_progress import LiveStudy

        return LiveStudy(n_trials, name, on_record, may_end_early=may_end_early)
    return StudyLines(n_trials, name, on_record, may_end_early=may_end_early)


def draws_on_terminal() -> bool:
    """Return whether stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")


class StudyLines(StudyProgress):
    """Print a plain line when something has changed, at most one in LINE_INTERVAL_S."""

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
        """Begin as StudyProgress does."""
        super().__init__(n_trials, name, on_record, clock, say, may_end_early=may_end_early)
        self._said_s = clock()

    def _changed(self) -> None:
        if self._clock() - self._said_s < LINE_INTERVAL_S:
            return
        self._said_s = self._clock()
        self._say(f"{self.name}: {self._state()}")

    def _state(self) -> str:
        """Return the progress in one line."""
        if self.preparation:
            done, total = self.preparation
            return f"the search learns the simulator, {done} of {total} prefill pools, {times_text(self)}"
        parts = [f"{self.done} of {self.n_trials} trials"] if self.n_trials > 1 else []
        parts += [f"trial {trial.number} {trial.step}" for trial in list(self.running.values())[:1]]
        parts += [times_text(self), best_text(self.best)]
        return ", ".join(part for part in parts if part)


@contextmanager
def evaluations_progress() -> Iterator[Callable[[float], None]]:
    """Count a fit's evaluations; the yielded function takes the misfit of each, as a share."""
    count, said_s = 0, time.monotonic()

    def text(misfit_frac: float) -> str:
        return f"calibrate: {count} evaluations, {misfit_frac:.1%} from the fitted figures"

    if not draws_on_terminal():

        def said(misfit_frac: float) -> None:
            """Count one evaluation, and print a line from time to time."""
            nonlocal count, said_s
            count += 1
            if time.monotonic() - said_s >= LINE_INTERVAL_S:
                said_s = time.monotonic()
                print_progress(text(misfit_frac))

        yield said
        return
    with working("calibrate") as update:

        def drawn(misfit_frac: float) -> None:
            """Count one evaluation and show its misfit."""
            nonlocal count
            count += 1
            update(text(misfit_frac))

        yield drawn


@contextmanager
def working(task: str) -> Iterator[Callable[[str], None]]:
    """Show that a task of unknown length goes on; the yielded function replaces its words on a terminal.

    Elsewhere a task of more than QUIET_S is said, and again every LINE_INTERVAL_S.
    """
    if not draws_on_terminal():
        with _saying(task):
            yield lambda words: None
        return
    from rich.console import Console

    with Console(stderr=True).status(task) as status:
        yield status.update


@contextmanager
def _saying(task: str) -> Iterator[None]:
    """Print plain lines while a task goes on."""
    ended, began_s = threading.Event(), time.monotonic()

    def say() -> None:
        """Print a line after QUIET_S and then every LINE_INTERVAL_S, until the task has ended."""
        pause_s = QUIET_S
        while not ended.wait(pause_s):
            print_progress(f"{task}, {duration(time.monotonic() - began_s)} passed")
            pause_s = LINE_INTERVAL_S

    thread = threading.Thread(target=say, name=task, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
