"""Keep all requests in flight in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Protocol

from tune.client.client_settings import ClientSettings
from tune.client.frontends import Frontends
from tune.client.http_exchange import Clock
from tune.client.prompts import Prompts
from tune.client.request_tracker import RequestTracker
from tune.errors import ResumableError
from tune.loadgen.run_settings import limit_ns
from tune.loadgen.verdict import MIN_TOKENS, min_report_delay_ns

THREAD_NAME = "dispatcher"
"""Name of the dispatcher's thread."""

_SPARE_CONNECTIONS = 4
"""Connections opened ahead of their requests.

Chosen here: more requests than arrive in the milliseconds that opening one takes.
"""


class CompletionSink(Protocol):
    """Receive the fate of each query on behalf of LoadGen, which times both calls itself."""

    def first_token(self, response_id: int) -> None:
        """Note the first token of a query. Must be called once, before `complete`."""

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Note the end of a query."""


class RequestDispatcher:
    """Send queries from an event loop in its own thread, at most `client_concurrency` at once.

    A query that waits for its turn does not slow the arrivals, and its wait counts in its latency. A query
    that failed is reported as tune.loadgen.verdict.min_report_delay_ns says.
    """

    def __init__(
        self,
        settings: ClientSettings,
        tracker: RequestTracker,
        prompts: Prompts,
        sink: CompletionSink,
        clock: Clock,
    ) -> None:
        self._settings, self._tracker, self._prompts = settings, tracker, prompts
        self._sink, self._clock = sink, clock
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.load.client_concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread and wait until it accepts queries. Raises ResumableError when it cannot."""
        self._thread.start()
        self._ready.wait()
        if self._fault:
            raise ResumableError(f"the streaming thread did not start: {self._fault!r}. Run the trial again.")

    def submit(self, position: int, response_id: int) -> None:
        """Send the query at `position`; return at once. LoadGen's thread calls this."""
        self._loop.call_soon_threadsafe(self._start_request, position, response_id)

    def check(self) -> None:
        """Raise the first exception of the client's own code, if any.

        Otherwise LoadGen would wait for its query for ever.
        """
        if self._fault:
            raise self._fault

    def cpu_s(self) -> float:
        """Return the seconds that the running thread has computed so far."""
        assert self._thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def stop(self) -> None:
        """End the thread; every query must have been reported."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        """Run the event loop until it is stopped; keep an exception for `check`."""
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # of a thread: `check` raises it in the one that watches
            self._fault = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        """Hold the connections open until the dispatcher is stopped."""
        self._frontends = Frontends(self._settings, self._clock, spares=_SPARE_CONNECTIONS)
        self._ready.set()
        await self._stop.wait()
        await self._frontends.close()

    def _start_request(self, position: int, response_id: int) -> None:
        """Start the task of one query."""
        task = self._loop.create_task(self._serve_query(position, response_id))
        self._tasks.add(task)
        task.add_done_callback(self._finish_request)

    def _finish_request(self, task: asyncio.Task[None]) -> None:
        """Forget the task of one query; keep its exception for `check`."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fault = self._fault or error

    async def _serve_query(self, position: int, response_id: int) -> None:
        """Send one query when a slot is free, and report its fate to the sink."""
        response = self._tracker.responses[position]
        first_reported_ns = -1

        def report_first_token() -> None:
            """Report the first token to the sink."""
            nonlocal first_reported_ns
            first_reported_ns = self._clock()
            self._sink.first_token(response_id)

        async with self._slots:
            body, input_tokens = self._prompts.body(position), self._tracker.input_tokens(position)
            await self._frontends.request(body, input_tokens, response, report_first_token)
        if not response.error:
            self._sink.complete(response_id, response.output_tokens)
        elif first_reported_ns < 0:
            await self._wait_past_limit(self._settings.slo.ttft_p99_s, int(self._tracker.issued_ns[position]))
            self._sink.first_token(response_id)
            self._sink.complete(response_id, 0)
        else:
            await self._wait_past_limit(self._settings.slo.tpot_p99_s, first_reported_ns)
            self._sink.complete(response_id, MIN_TOKENS)

    async def _wait_past_limit(self, limit_s: float | None, since_ns: int) -> None:
        """Sleep until a report, due from `since_ns` on, is late for the limit of `limit_s`."""
        left_ns = min_report_delay_ns(limit_ns(limit_s)) - (self._clock() - since_ns)
        await asyncio.sleep(max(0.0, left_ns * 1e-9))
