"""Rewrite the page of a study after each batch of its trials, unless that costs more than little."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_SHARE = 0.03
"""Largest share of the study's time that rewriting takes."""


class LiveReport:
    """Call `write` after each batch of trials; a failure of it never reaches the study.

    A batch is left out where rewriting after it would take more than MAX_SHARE of the time. `say` receives
    the first failure in words, and `clock` returns seconds.
    """

    def __init__(
        self,
        write: Callable[[], object],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._say, self._clock = write, say, clock
        self._due_s = clock()
        self._failed = False

    def update(self) -> None:
        """Rewrite the page if it is due."""
        began_s = self._clock()
        if began_s < self._due_s:
            return
        try:
            self._write()
        except Exception as error:  # a page that cannot be written must not end hours of measurement
            if not self._failed:
                self._say(f"the report was not rewritten, the study goes on: {error}")
            self._failed = True
        ended_s = self._clock()
        self._due_s = ended_s + (ended_s - began_s) / MAX_SHARE
