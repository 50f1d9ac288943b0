"""Decide when a job that Slurm rejected is submitted again, and when no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune.backends.slurm.submission import RetryableRejection, rejection_error


@dataclass(frozen=True)
class _Refusal:
    """Hold a rejection: since when it lasts, and when to submit again, by the clock, in seconds."""

    patience_s: float | None
    since_s: float
    again_s: float


class SubmissionBackoff:
    """Keep rejections by allocation folder; `say` prints each once, and again where the reason changes."""

    def __init__(self, say: Callable[[str], None], retry_s: float, clock: Callable[[], float]) -> None:
        self._say, self._retry_s, self._clock = say, retry_s, clock
        self._refusals: dict[Path, _Refusal] = {}

    def is_to_wait(self, folder: Path) -> bool:
        """Return whether it is too early to submit the job again."""
        refusal = self._refusals.get(folder)
        return refusal is not None and self._clock() < refusal.again_s

    def note(self, folder: Path, error: RetryableRejection) -> None:
        """Note that Slurm rejected the job with `error`.

        Raises ConfigurationError where the rejection has lasted longer than its patience.
        """
        now_s, before = self._clock(), self._refusals.get(folder)
        if before is None or before.patience_s != error.patience_s:
            self._say(str(error))
            before = _Refusal(error.patience_s, now_s, now_s)
        tried_s = now_s - before.since_s
        if error.patience_s is not None and tried_s > error.patience_s:
            raise rejection_error(f"{error}\n  It was tried for {tried_s / 3600:.1f} h.")
        self._refusals[folder] = _Refusal(error.patience_s, before.since_s, now_s + self._retry_s)
