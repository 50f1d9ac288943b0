"""Replace a clock by one that only the test moves."""

from __future__ import annotations


class StillClock:
    """Return the time that a test sets; `pass_s` moves it on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
