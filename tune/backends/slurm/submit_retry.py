"""Jobs that Slurm did not take when they were submitted: when to try again, and when to give up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune.backends.slurm.submission import RetryableRejection, rejection_error


@dataclass(frozen=True)
class _Refusal:
    """The times are those of the clock: since when Slurm says so, and when to try again."""

    patience_s: float | None
    since_s: float
    again_s: float


class SubmissionBackoff:
    """By the folder of their allocation. `say` hears once of each job, and again where the reason changes."""

    def __init__(self, say: Callable[[str], None], retry_s: float, clock: Callable[[], float]) -> None:
        self._say, self._retry_s, self._clock = say, retry_s, clock
        self._refusals: dict[Path, _Refusal] = {}

    def is_to_wait(self, folder: Path) -> bool:
        """Whether it is too early to submit the job again."""
        refusal = self._refusals.get(folder)
        return refusal is not None and self._clock() < refusal.again_s

    def note(self, folder: Path, error: RetryableRejection) -> None:
        """Slurm has turned the job down with `error`. Raises ConfigurationError where that will not pass any more."""
        now_s, before = self._clock(), self._refusals.get(folder)
        if before is None or before.patience_s != error.patience_s:
            self._say(str(error))
            before = _Refusal(error.patience_s, now_s, now_s)
        tried_s = now_s - before.since_s
        if error.patience_s is not None and tried_s > error.patience_s:
            raise rejection_error(f"{error}\n  It was tried for {tried_s / 3600:.1f} h.")
        self._refusals[folder] = _Refusal(error.patience_s, before.since_s, now_s + self._retry_s)
