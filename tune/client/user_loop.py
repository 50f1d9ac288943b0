"""Send the queries of users who wait for their answers: LoadGen's Server scenario waits for none."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tune.client.answer_wait import AnswerWait


class UserLoop(AnswerWait):
    """Stand in for LoadGen: issue a query for each of `users`, and the next one when an answer has ended."""

    def __init__(self, queries: int, users: int) -> None:
        super().__init__(queries)
        self._queries = queries
        self._idle_users = threading.Semaphore(users)

    def __str__(self) -> str:
        """Return the name by which lines of progress call the issuer of queries."""
        return "The closed loop"

    def run(self, issue: Callable[[int, int], None]) -> None:
        """Call `issue` in this thread, as `run_loadgen` does; return when every query is complete.

        Response id and sample index of a query are its position.
        """
        for position in range(self._queries):
            self._idle_users.acquire()
            issue(position, position)
        self.wait_for_all()

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Note the end of a query, whose user sends the next one; one thread calls this."""
        super().complete(response_id, output_tokens)
        self._idle_users.release()
