"""The streaming thread: takes queries from LoadGen's thread and keeps all of them in flight."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint
from tune.client.http_exchange import Clock
from tune.client.prompts import Prompts
from tune.client.request_tracker import RequestTracker
from tune.errors import ResumableError
from tune.loadgen.run_settings import limit_ns
from tune.loadgen.verdict import FEWEST_TOKENS, min_report_delay_ns

_CONNECTIONS_AHEAD = 4
"""More than arrive while one is made, which takes milliseconds. Our choice."""


class CompletionSink(Protocol):
    """Where LoadGen hears what became of a query; it times both calls itself."""

    def first_token(self, response_id: int) -> None:
        """The first token came. Must be called before `complete`, once."""

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Nothing more comes of this query."""


class RequestDispatcher:
    """An event loop in a thread of its own; at most `client_concurrency` requests are sent at once.

    A query that waits for its turn does not slow the arrivals, and its wait counts in its latency.
    How LoadGen hears of one that failed, tune.loadgen.verdict.min_report_delay_ns says.
    """

    def __init__(
        self,
        settings: ClientSettings,
        ledger: RequestTracker,
        prompts: Prompts,
        reports: CompletionSink,
        clock: Clock,
    ) -> None:
        self._settings, self._ledger, self._prompts = settings, ledger, prompts
        self._reports, self._clock = reports, clock
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.load.client_concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until it takes queries. Raises ResumableError when it cannot."""
        self._thread.start()
        self._ready.wait()
        if self._fault:
            raise ResumableError(f"the streaming thread did not start: {self._fault!r}. Run the trial again.")

    def submit(self, position: int, response_id: int) -> None:
        """Take the query at `position`; returns at once. Called by LoadGen's thread."""
        self._loop.call_soon_threadsafe(self._begin, position, response_id)

    def check(self) -> None:
        """Raise the first fault of our own, if there was one: LoadGen would wait for its query for ever."""
        if self._fault:
            raise self._fault

    def stop(self) -> None:
        """End the thread; every query must have been reported."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._fault = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._endpoint = Endpoint(self._settings, self._clock, ahead=_CONNECTIONS_AHEAD)
        self._ready.set()
        await self._stop.wait()
        await self._endpoint.close()

    def _begin(self, position: int, response_id: int) -> None:
        task = self._loop.create_task(self._answer(position, response_id))
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fault = self._fault or error

    async def _answer(self, position: int, response_id: int) -> None:
        answer = self._ledger.answers[position]
        first_told_ns = -1

        def tell_first() -> None:
            nonlocal first_told_ns
            first_told_ns = self._clock()
            self._reports.first_token(response_id)

        async with self._slots:
            await self._endpoint.ask(self._prompts.body(position), answer, tell_first)
        if not answer.error:
            self._reports.complete(response_id, answer.output_tokens)
        elif first_told_ns < 0:
            await self._wait_past(self._settings.slo.ttft_p99_s, int(self._ledger.issued_ns[position]))
            self._reports.first_token(response_id)
            self._reports.complete(response_id, 0)
        else:
            await self._wait_past(self._settings.slo.tpot_p99_s, first_told_ns)
            self._reports.complete(response_id, FEWEST_TOKENS)

    async def _wait_past(self, limit_s: float | None, since_ns: int) -> None:
        left_ns = min_report_delay_ns(limit_ns(limit_s)) - (self._clock() - since_ns)
        await asyncio.sleep(max(0.0, left_ns * 1e-9))
