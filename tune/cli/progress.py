"""Show the progress of long actions on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from tune.backends.activity import Activity
from tune.records.outcome import Outcome
from tune.study.listener import StudyListener


def print_above_bar(line: str) -> None:
    """Print a line on stderr, above a bar that is drawn there."""
    tqdm.write(line, file=sys.stderr)


class StudyBar(StudyListener):
    """Draw the bar of a study of `n_trials`, after one of its preparation where there is any."""

    def __init__(self, n_trials: int, name: str) -> None:
        self._n_trials, self._name, self._best = n_trials, name, 0.0
        self._preparation: tqdm[Any] | None = None
        self._trials: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in (self._preparation, self._trials):
            if bar is not None:
                bar.close()

    def prepared(self, done: int, total: int) -> None:
        """Draw how far the preparation is."""
        if self._preparation is None:
            self._preparation = tqdm(
                total=total,
                desc="the search learns the simulator",
                unit=" prefill pools",
                leave=False,
                file=sys.stderr,
            )
        self._preparation.update()

    def trial_does(self, number: int, activity: Activity) -> None:
        """Show what a trial does."""
        self._bar().set_description_str(f"{self._name}: trial {number} {activity.text}")

    def recorded(self, outcome: Outcome) -> None:
        """Advance by one trial and show the best so far."""
        bar = self._bar()
        bar.set_description_str(self._name, refresh=False)
        if outcome.feasible and (outcome.output_tps_per_gpu or 0.0) > self._best:
            self._best = outcome.output_tps_per_gpu or 0.0
            bar.set_postfix_str(f"best {self._best:.1f} tokens/s/GPU, trial {outcome.number}")
        bar.update()

    def _bar(self) -> tqdm[Any]:
        """Return the bar of the trials, drawn from now on; the one of the preparation ends."""
        if self._preparation is not None:
            self._preparation.close()
            self._preparation = None
        if self._trials is None:
            self._trials = tqdm(total=self._n_trials, desc=self._name, unit="trial", file=sys.stderr)
        return self._trials


@contextmanager
def evaluations_bar() -> Iterator[Callable[[float], None]]:
    """Count a fit's evaluations, on a terminal; the yielded function takes the misfit of each, as a share."""
    with tqdm(desc="calibrate", unit=" evaluations", file=sys.stderr, disable=None) as bar:

        def evaluated(misfit_frac: float) -> None:
            """Count one evaluation and show its misfit."""
            bar.set_postfix_str(f"{misfit_frac:.1%} from the fitted figures", refresh=False)
            bar.update()

        yield evaluated
