"""Show the progress of long actions on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from tune.records.outcome import Outcome


def print_above_bar(line: str) -> None:
    """Print a line on stderr, above a bar that is drawn there."""
    tqdm.write(line, file=sys.stderr)


@contextmanager
def trials_bar(n_trials: int, name: str) -> Iterator[Callable[[Outcome], None]]:
    """Draw the bar of a study; the yielded function takes every outcome that is recorded."""
    best = 0.0
    with tqdm(total=n_trials, desc=name, unit="trial", file=sys.stderr) as bar:

        def recorded(outcome: Outcome) -> None:
            """Advance by one trial and show the best so far."""
            nonlocal best
            if outcome.feasible and (outcome.output_tps_per_gpu or 0.0) > best:
                best = outcome.output_tps_per_gpu or 0.0
                bar.set_postfix_str(f"best {best:.1f} tokens/s/GPU, trial {outcome.number}")
            bar.update()

        yield recorded


@contextmanager
def preparations_bar() -> Iterator[Callable[[], None]]:
    """Show the progress of the simulations before a search; the yielded function counts one of them."""
    bar: tqdm[Any] | None = None

    def prepared() -> None:
        """Count one more simulation; the bar appears with the first."""
        nonlocal bar
        if bar is None:
            bar = tqdm(desc="the search learns the simulator", unit=" prefill pools", file=sys.stderr)
        bar.update()

    try:
        yield prepared
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def evaluations_bar() -> Iterator[Callable[[float], None]]:
    """Count a fit's evaluations, on a terminal; the yielded function takes the misfit of each, as a share."""
    with tqdm(desc="calibrate", unit=" evaluations", file=sys.stderr, disable=None) as bar:

        def evaluated(misfit_frac: float) -> None:
            """Count one evaluation and show its misfit."""
            bar.set_postfix_str(f"{misfit_frac:.1%} from the fitted figures", refresh=False)
            bar.update()

        yield evaluated
