"""Send the queries of a trace at its own times: LoadGen's Server scenario can only draw its arrivals."""

from __future__ import annotations

import time
from collections.abc import Callable

from tune.client.answer_wait import AnswerWait
from tune.client.http_exchange import Clock
from tune.core.arrays import IntArray


class TraceReplay(AnswerWait):
    """Stand in for LoadGen: issue each query when it is due, and wait until all are complete."""

    def __init__(self, arrival_ns: IntArray, clock: Clock) -> None:
        super().__init__(len(arrival_ns))
        self._arrival_ns, self._clock = arrival_ns, clock

    def __str__(self) -> str:
        """Return the name by which lines of progress call the issuer of queries."""
        return "The trace"

    def run(self, issue: Callable[[int, int], None]) -> None:
        """Call `issue` in this thread, as `run_loadgen` does; return when every query is complete.

        Response id and sample index of a query are its position.
        """
        start_ns = self._clock()
        for position, arrival_ns in enumerate(self._arrival_ns.tolist()):
            wait_ns = start_ns + arrival_ns - self._clock()
            if wait_ns > 0:
                time.sleep(wait_ns * 1e-9)
            issue(position, position)
        self.wait_for_all()
