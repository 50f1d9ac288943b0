"""Wait for every answer, as LoadGen does at its end, for what sends queries in its place."""

from __future__ import annotations

import threading


class AnswerWait:
    """Count the queries that are not complete."""

    def __init__(self, queries: int) -> None:
        self._open = queries
        self._all_complete = threading.Event()

    def first_token(self, response_id: int) -> None:
        """Note the first token of a query; the tracker has its time."""

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Note the end of a query; one thread calls this."""
        self._open -= 1
        if not self._open:
            self._all_complete.set()

    def wait_for_all(self) -> None:
        """Return when every query is complete."""
        self._all_complete.wait()
