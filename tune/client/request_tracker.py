"""What happened to every query so far, kept by position in the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tune.client.schedule import Schedule
from tune.client.sse_response import StreamedResponse
from tune.core.arrays import IntArray
from tune.records.requests import RequestLog


@dataclass(frozen=True)
class ProgressCounts:
    """Counts of queries at one instant. `late`: without a first token when the TTFT limit passed."""

    issued: int
    answered: int
    in_flight: int
    late: int
    errors: int


@dataclass(eq=False)
class RequestTracker:
    """Times in ns on the client's clock, shape (queries,), -1 where the event never came.

    LoadGen's thread writes `issued_ns` and nothing else, the streaming thread writes the rest. Only where
    token ids are sent (`sends_ids`) is the length of a prompt known, and one that the server cut an error.
    """

    schedule: Schedule
    sends_ids: bool = True
    issued: int = 0
    issued_ns: IntArray = field(init=False)
    answers: list[StreamedResponse] = field(init=False)

    def __post_init__(self) -> None:
        self.issued_ns = np.full(len(self.schedule), -1, np.int64)
        schedule = self.schedule
        sent = schedule.input_tokens if self.sends_ids else np.zeros_like(schedule.input_tokens)
        self.answers = [
            StreamedResponse(sent_tokens=ids, fewest_tokens=fewest, most_tokens=most)
            for ids, fewest, most in zip(
                sent.tolist(), schedule.fewest_tokens.tolist(), schedule.most_tokens.tolist(), strict=True
            )
        ]

    def note_issue(self, now_ns: int) -> int:
        """LoadGen issued its next query at `now_ns`: its position, in order of arrival."""
        position = self.issued
        self.issued_ns[position] = now_ns
        self.issued = position + 1
        return position

    @property
    def start_ns(self) -> int:
        """When the test began, on the client's clock; 0 before the first query.

        LoadGen does not say. It issues a query at its scheduled time or later, so the least delayed one
        bounds the start from above, within the time a thread takes to wake up.
        """
        issued = self.issued
        if not issued:
            return 0
        return int((self.issued_ns[:issued] - self.schedule.arrival_ns[:issued]).min())

    def issue_delay_ns(self) -> IntArray:
        """How much later than scheduled LoadGen issued each query so far; shape (issued,), least one 0."""
        issued = self.issued
        return self.issued_ns[:issued] - self.schedule.arrival_ns[:issued] - self.start_ns

    def progress(self, now_ns: int, ttft_limit_ns: int) -> ProgressCounts:
        """Counts at `now_ns`, of the queries issued so far."""
        issued = self.issued
        answers = self.answers[:issued]
        errors = sum(1 for answer in answers if answer.error)
        answered = sum(1 for answer in answers if answer.done_ns >= 0)
        first = np.array([answer.first_token_ns for answer in answers], np.int64)
        waited = np.where(first >= 0, first, now_ns) - self.start_ns - self.schedule.arrival_ns[:issued]
        late = int((waited > ttft_limit_ns).sum())
        return ProgressCounts(issued, answered, issued - answered - errors, late, errors)

    def to_log(self) -> RequestLog:
        """The record of all queries issued so far; one still in flight has the error "interrupted".

        The length of a prompt is the server's count where the answer stated one, else the schedule's.
        """
        issued, start = self.issued, self.start_ns
        answers = self.answers[:issued]
        first = np.array([answer.first_token_ns for answer in answers], np.int64)
        done = np.array([answer.done_ns for answer in answers], np.int64)
        errors = [answer.error or ("" if answer.done_ns >= 0 else "interrupted") for answer in answers]
        unknown = np.full(issued, -1, np.int64)
        counted = np.array([answer.prompt_tokens for answer in answers], np.int64)
        return RequestLog(
            scheduled_ns=self.schedule.arrival_ns[:issued],
            first_token_ns=np.where(first >= 0, first - start, -1),
            done_ns=np.where(done >= 0, done - start, -1),
            input_tokens=np.where(counted > 0, counted, self.schedule.input_tokens[:issued]),
            output_tokens=np.array([a.output_tokens if a.done_ns >= 0 else 0 for a in answers], np.int64),
            prefill_worker=unknown,
            decode_worker=unknown,
            error=np.array(errors, np.str_),
        )
