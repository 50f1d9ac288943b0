"""Decide from the finished requests whether a run can still hold its SLO."""

from __future__ import annotations

import numpy as np

from tune.capacity.futility import Futility, find_futility
from tune.client.request_tracker import RequestTracker
from tune.records.requests import RequestLog
from tune.spec.load import Slo


class FutilityMonitor:
    """Check a running test for futility.

    Only the finished prefix of the request order is read, each request once.
    """

    def __init__(self, tracker: RequestTracker, slo: Slo) -> None:
        self._tracker, self._slo = tracker, slo
        self._finished = 0
        self._first_ns, self._done_ns, self._tokens = np.full((3, len(tracker.schedule)), -1, np.int64)

    def futility(self) -> Futility | None:
        """Return from which request on the run cannot hold its SLO, or None while it may.

        Only the requests before the first one in flight count. Exact, as tune.capacity.futility.find_futility
        is.
        """
        self._read_finished()
        futility = find_futility(self._finished_log(), self._slo, len(self._tracker.schedule))
        return futility if futility and futility.queries <= self._finished else None

    def _read_finished(self) -> None:
        """Copy the times of the requests that have finished since the last call."""
        responses, issued = self._tracker.responses, self._tracker.issued
        while self._finished < issued and responses[self._finished].finished:
            response = responses[self._finished]
            if response.done_ns >= 0:
                self._first_ns[self._finished] = response.first_token_ns
                self._done_ns[self._finished] = response.done_ns
                self._tokens[self._finished] = response.output_tokens
            self._finished += 1

    def _finished_log(self) -> RequestLog:
        """Return the record of the finished requests; a failed one has no times and no text of its error."""
        finished, start_ns = self._finished, self._tracker.start_ns
        good = self._done_ns[:finished] >= 0
        unknown = np.full(finished, -1, np.int64)
        return RequestLog(
            scheduled_ns=self._tracker.schedule.arrival_ns[:finished],
            first_token_ns=np.where(good, self._first_ns[:finished] - start_ns, -1),
            done_ns=np.where(good, self._done_ns[:finished] - start_ns, -1),
            input_tokens=self._tracker.schedule.input_tokens[:finished],
            output_tokens=np.where(good, self._tokens[:finished], 0),
            prefill_worker=unknown,
            decode_worker=unknown,
            error=np.full(finished, ""),
        )
