"""Record for how long each attempt holds its GPUs, beyond its own record."""

from __future__ import annotations

import time
from pathlib import Path

from tune.errors import TuneError
from tune.orchestrator.managed_process import PrintLine
from tune.records.held_time import write_free_after


class HeldTimer:
    """Write held.json of one attempt after another: each holds its GPUs until the next begins, or `end`.

    `print_line` receives why a file could not be written.
    """

    def __init__(self, print_line: PrintLine) -> None:
        self._print_line = print_line
        self._attempt: Path | None = None
        self._began_s = 0.0

    def begin(self, attempt: Path) -> None:
        """Note that `attempt` holds the GPUs from now on, and no other does."""
        self.end()
        self._attempt, self._began_s = attempt, time.monotonic()

    def end(self) -> None:
        """Note that nothing holds the GPUs any more; does nothing where no attempt began."""
        if self._attempt:
            try:
                write_free_after(self._attempt, time.monotonic() - self._began_s)
            except TuneError as error:
                self._print_line(f"for how long attempt {self._attempt.name} held its GPUs is lost: {error}")
            self._attempt = None
