"""Whether a run that goes on can still hold its SLO, by what is over of it."""

from __future__ import annotations

import numpy as np

from tune.capacity.futility import Futility, find_futility
from tune.client.request_tracker import RequestTracker
from tune.records.requests import RequestLog
from tune.spec.load import Slo


class FutilityMonitor:
    """Looks at each request once, when it and all before it are over: the streams go on meanwhile."""

    def __init__(self, ledger: RequestTracker, slo: Slo) -> None:
        self._ledger, self._slo = ledger, slo
        self._over = 0
        self._first_ns, self._done_ns, self._tokens = np.full((3, len(ledger.schedule)), -1, np.int64)

    def hopeless(self) -> Futility | None:
        """From when on the run cannot hold its SLO; None while it may, by the requests up to the first that
        is still in flight. Exact, as tune.capacity.futility.hopeless is."""
        self._look()
        found = find_futility(self._record(), self._slo, len(self._ledger.schedule))
        return found if found and found.queries <= self._over else None

    def _look(self) -> None:
        answers, issued = self._ledger.answers, self._ledger.issued
        while self._over < issued and answers[self._over].over:
            answer = answers[self._over]
            if answer.done_ns >= 0:
                self._first_ns[self._over] = answer.first_token_ns
                self._done_ns[self._over] = answer.done_ns
                self._tokens[self._over] = answer.output_tokens
            self._over += 1

    def _record(self) -> RequestLog:
        """Of the requests that are over; one that failed has no times, and no word why."""
        over, start_ns = self._over, self._ledger.start_ns
        good = self._done_ns[:over] >= 0
        unknown = np.full(over, -1, np.int64)
        return RequestLog(
            scheduled_ns=self._ledger.schedule.arrival_ns[:over],
            first_token_ns=np.where(good, self._first_ns[:over] - start_ns, -1),
            done_ns=np.where(good, self._done_ns[:over] - start_ns, -1),
            input_tokens=self._ledger.schedule.input_tokens[:over],
            output_tokens=np.where(good, self._tokens[:over], 0),
            prefill_worker=unknown,
            decode_worker=unknown,
            error=np.full(over, ""),
        )
