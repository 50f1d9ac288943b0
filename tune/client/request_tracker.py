"""Track the state of every query, by its position in the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tune.client.schedule import Schedule
from tune.client.sse_response import StreamedResponse
from tune.core.arrays import IntArray
from tune.records.requests import RequestLog


@dataclass(frozen=True)
class ProgressCounts:
    """Count queries at one instant. `late`: without a first token when the TTFT limit passed."""

    issued: int
    answered: int
    in_flight: int
    late: int
    errors: int


@dataclass(eq=False)
class RequestTracker:
    """Hold the events of each query: times in ns on the client's clock, shape (queries,), or -1.

    LoadGen's thread writes `issued_ns` and `issued`; the dispatcher's thread writes the rest. Only where
    token ids are sent (`sends_ids`) is the length of a prompt known, and a prompt that the server cut an
    error. With `keeps_text` the responses collect the text of their answers.
    """

    schedule: Schedule
    sends_ids: bool = True
    keeps_text: bool = False
    issued: int = 0
    issued_ns: IntArray = field(init=False)
    responses: list[StreamedResponse] = field(init=False)

    def __post_init__(self) -> None:
        self.issued_ns = np.full(len(self.schedule), -1, np.int64)
        schedule = self.schedule
        sent = schedule.input_tokens if self.sends_ids else np.zeros_like(schedule.input_tokens)
        self.responses = [
            StreamedResponse(
                sent_tokens=ids,
                min_output_tokens=fewest,
                max_output_tokens=most,
                pieces=[] if self.keeps_text else None,
            )
            for ids, fewest, most in zip(
                sent.tolist(),
                schedule.min_output_tokens.tolist(),
                schedule.max_output_tokens.tolist(),
                strict=True,
            )
        ]

    def note_issue(self, now_ns: int) -> int:
        """Note that LoadGen issued its next query at `now_ns`; return its position in order of arrival.

        In a closed loop that is its arrival.
        """
        position = self.issued
        self.issued_ns[position] = now_ns
        if self.schedule.is_closed_loop:
            self.schedule.arrival_ns[position] = now_ns - self.issued_ns[0]
        self.issued = position + 1
        return position

    def note_issue_of(self, position: int, now_ns: int) -> None:
        """Note that LoadGen issued the query at `position` at `now_ns`, in an order of its own."""
        self.issued_ns[position] = now_ns
        self.issued += 1

    def input_tokens(self, position: int) -> int:
        """Return the scheduled length of the prompt at `position`."""
        return int(self.schedule.input_tokens[position])

    @property
    def start_ns(self) -> int:
        """Return when the test began on the client's clock, in ns; 0 before the first query.

        LoadGen does not say. It issues a query at its scheduled time or later, so the least delayed one
        bounds the start from above, within the time that a thread takes to wake up.
        """
        issued = self.issued
        if not issued:
            return 0
        return int((self.issued_ns[:issued] - self.schedule.arrival_ns[:issued]).min())

    def issue_delay_ns(self) -> IntArray:
        """Return how late LoadGen issued each query, in ns, shape (issued,); the least is 0."""
        issued = self.issued
        return self.issued_ns[:issued] - self.schedule.arrival_ns[:issued] - self.start_ns

    def overdue_ns(self, now_ns: int) -> int:
        """Return for how long the next query has been due; 0 before the first one and after the last."""
        issued = self.issued
        if not issued or issued >= len(self.schedule):
            return 0
        return max(0, now_ns - self.start_ns - int(self.schedule.arrival_ns[issued]))

    def progress(self, now_ns: int, ttft_limit_ns: int) -> ProgressCounts:
        """Return counts of the queries issued until `now_ns`."""
        issued = self.issued
        responses = self.responses[:issued]
        errors = sum(1 for response in responses if response.error)
        answered = sum(1 for response in responses if response.done_ns >= 0)
        first = np.array([response.first_token_ns for response in responses], np.int64)
        waited = np.where(first >= 0, first, now_ns) - self.start_ns - self.schedule.arrival_ns[:issued]
        late = int((waited > ttft_limit_ns).sum())
        return ProgressCounts(issued, answered, issued - answered - errors, late, errors)

    def to_log(self) -> RequestLog:
        """Return the record of all queries issued so far; one still in flight has the error "interrupted".

        The length of a prompt is the server's count where its answer states one, else the schedule's.
        """
        issued, start = self.issued, self.start_ns
        responses = self.responses[:issued]
        first = np.array([response.first_token_ns for response in responses], np.int64)
        done = np.array([response.done_ns for response in responses], np.int64)
        sent = np.array([response.sent_ns for response in responses], np.int64)
        errors = [
            response.error or ("" if response.done_ns >= 0 else "interrupted") for response in responses
        ]
        unknown = np.full(issued, -1, np.int64)
        prompt_tokens = np.array([response.prompt_tokens for response in responses], np.int64)
        return RequestLog(
            scheduled_ns=self.schedule.arrival_ns[:issued],
            first_token_ns=np.where(first >= 0, first - start, -1),
            done_ns=np.where(done >= 0, done - start, -1),
            input_tokens=np.where(prompt_tokens > 0, prompt_tokens, self.schedule.input_tokens[:issued]),
            output_tokens=np.array([a.output_tokens if a.done_ns >= 0 else 0 for a in responses], np.int64),
            prefill_worker=unknown,
            decode_worker=unknown,
            error=np.array(errors, np.str_),
            sent_ns=np.where(sent >= 0, sent - start, -1),
        )
