"""Run the load client once, from the check of the endpoint to the record in its folder."""

from __future__ import annotations

import asyncio
import gc
import resource
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tune.analysis.measure import REQUESTS_FILE
from tune.capacity.futility import Futility
from tune.client.accuracy_run import run_accuracy
from tune.client.client_settings import ClientSettings
from tune.client.endpoint import check_endpoints
from tune.client.futility_monitor import FutilityMonitor
from tune.client.http_exchange import Clock
from tune.client.loadgen_driver import LoadGenSink, run_loadgen
from tune.client.prompts import Prompts
from tune.client.request_dispatcher import RequestDispatcher
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import Schedule, draw_schedule
from tune.client.trace_replay import TraceReplay
from tune.client.user_loop import UserLoop
from tune.errors import ConfigurationError, ResumableError
from tune.loadgen.log_reader import read_verdict
from tune.loadgen.log_writer import DETAIL_LOG, SUMMARY_LOG, write_logs
from tune.loadgen.run_settings import limit_ns, loadgen_settings
from tune.records.requests import RequestLog, first_requests, write_requests
from tune.spec.load import Load

_PROGRESS_INTERVAL_S = 5.0
_OTHER_OPEN_FILES = 64

OVERDUE_S = 30.0
"""Seconds after which LoadGen counts as stopped that has not issued a query: it is late by milliseconds. It
waits by the time of day, so that it stops for as long as that is set back. Source: LoadGen, PerfClock."""

LATE_S, MAX_LATE_FRAC = 1.0, 0.01
"""Seconds by which a query may be issued late, and the share of queries that may be later. Where the time of
day is set ahead, LoadGen issues at once what is due until then, and all queries before it count as late."""

_CLOCK_SET = (
    "LoadGen goes by the time of day: the clock of this host was set while it ran, or the host stood still. "
    "Run again."
)


def run_client(
    settings: ClientSettings,
    folder: Path,
    clock: Clock,
    epoch_s: Callable[[], float],
    print_line: Callable[[str], None],
) -> Futility | None:
    """Drive the endpoint with LoadGen and leave its logs and requests.npz in `folder`.

    A trace is replayed without LoadGen, whose logs are then written by its rules from requests.npz. A closed
    loop is run without LoadGen, too, and has no such logs. With a
    `tokenizer` in `settings` the run is an accuracy run, which leaves accuracy.json instead of requests.npz.

    Parameters
    ----------
    settings
        The run and its endpoint.
    folder
        Receives LoadGen's logs and requests.npz; is made where it is missing.
    clock
        Counts nanoseconds and never jumps.
    epoch_s
        Returns the seconds since the epoch.
    print_line
        Shows a line of progress.

    Returns
    -------
    Futility | None
        Why the run was stopped, where `settings` ask for that; None for a complete run. After a stopped run
        requests.npz holds the requests up to the one that made it certain, and LoadGen's logs are absent.

    Raises
    ------
    ConfigurationError
        The settings cannot be run here.
    ResumableError
        The endpoint does not serve the model, every request failed, LoadGen did not issue the queries that
        were scheduled, or its logs hold no verdict.
    KeyboardInterrupt
        The run was interrupted; requests.npz is written.

    Notes
    -----
    LoadGen cannot be stopped, so after an exception or a stopped run the caller must end the process.
    """
    _allow_open_files(settings.load.client_concurrency + _OTHER_OPEN_FILES)
    _make_folder(folder)
    if settings.tokenizer is not None:
        run_accuracy(settings, folder, clock, print_line)
        return None
    return _run_performance(settings, folder, clock, epoch_s, print_line)


def _run_performance(
    settings: ClientSettings,
    folder: Path,
    clock: Clock,
    epoch_s: Callable[[], float],
    print_line: Callable[[str], None],
) -> Futility | None:
    """Send the queries of the schedule, record the requests and judge the run; see `run_client`."""
    schedule = draw_schedule(settings)
    asyncio.run(check_endpoints(settings))
    for name in (DETAIL_LOG, SUMMARY_LOG, REQUESTS_FILE):
        (folder / name).unlink(missing_ok=True)  # of an earlier run: two runs must not look like one
    driver = _ClientDriver(settings, schedule, folder, clock)
    sent = f"of {settings.load.text}"
    if not settings.load.is_closed_loop:
        sent = f"over {schedule.arrival_ns[-1] * 1e-9:.1f} s at {settings.load.offered_qps:g}/s"
    print_line(f"{len(schedule)} queries {sent}")
    try:
        driver.watch(print_line)
    finally:
        log = driver.record(epoch_s())
        write_requests(folder / REQUESTS_FILE, log)
    driver.judge()
    if settings.load.trace and not driver.stopped:
        write_logs(folder, log, settings.load, settings.slo, int(schedule.arrival_ns[-1]))
    if not (driver.stopped or settings.load.is_closed_loop):
        read_verdict(folder)  # raises where the disk was full: LoadGen does not say so
    return driver.stopped


def _make_folder(folder: Path) -> None:
    """Make the folder of the run. Raises ConfigurationError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--out {folder}: no folder and none can be made ({error.strerror})."
        ) from error


class _ClientDriver:
    """Run LoadGen, or what stands in for it, in one thread and the dispatcher in another, with one tracker.

    `stopped`: why the run was stopped, None for a complete run.
    """

    def __init__(self, settings: ClientSettings, schedule: Schedule, folder: Path, clock: Clock) -> None:
        self.tracker = RequestTracker(schedule, sends_ids=settings.load.api == "completions")
        self.stopped: Futility | None = None
        self._futility_monitor = FutilityMonitor(self.tracker, settings.slo)
        self._settings, self._schedule, self._folder, self._clock = settings, schedule, folder, clock
        self._issuer = _own_issuer(settings.load, schedule, clock)
        self._sink = self._issuer or LoadGenSink()
        prompts = Prompts(
            settings.served_model_name,
            settings.load,
            schedule,
            nvext=settings.nvext,
            earlier_runs=settings.earlier_runs,
        )
        self._dispatcher = RequestDispatcher(settings, self.tracker, prompts, self._sink, clock)
        self._thread = threading.Thread(target=self._run_loadgen, name="loadgen", daemon=True)
        self._error: BaseException | None = None
        self._unscheduled = 0
        self._busy_frac: float | None = None

    def watch(self, print_line: Callable[[str], None]) -> None:
        """Run to the end, with a line of progress every few seconds.

        Raises the error of a thread that failed, and ResumableError where LoadGen does not issue what is due.
        Where the settings ask for it, returns as soon as the run cannot hold its SLO; LoadGen then goes on.
        """
        gc.collect()
        gc.freeze()  # a full collection that walks the imports and the tracker would delay first tokens
        self._dispatcher.start()
        self._thread.start()
        started_ns = self._clock()
        while self._thread.is_alive():
            self._thread.join(_PROGRESS_INTERVAL_S)
            self._dispatcher.check()
            self._busy_frac = self._dispatcher.cpu_s() / ((self._clock() - started_ns) * 1e-9)
            print_line(self._progress(started_ns))
            self._require_issues()
            if self._settings.stop_when_futile and self._thread.is_alive():
                self.stopped = self._futility_monitor.futility()
            if self.stopped:
                print_line(
                    f"stopped: too many of the first {self.stopped.queries} requests are late for the SLO"
                )
                return
        if self._error:
            raise self._error
        self._dispatcher.stop()
        issuer, late_ms = self._issuer or "LoadGen", self.tracker.issue_delay_ns().max() * 1e-6
        print_line(f"{issuer} issued its queries at most {late_ms:.1f} ms late")

    def record(self, now_s: float) -> RequestLog:
        """Return the log of all requests so far; `now_s` is the time in seconds since the epoch.

        The log of a stopped run ends with the request that made the run futile.
        """
        log = self.tracker.to_log()
        if self.stopped:
            log = first_requests(log, self.stopped.queries)
        began_at_s = now_s - (self._clock() - self.tracker.start_ns) * 1e-9
        return replace(log, began_at_s=began_at_s, client_busy_frac=self._busy_frac) if len(log) else log

    def judge(self) -> None:
        """Raise ResumableError when the run says nothing about the deployment."""
        expected, issued = len(self._schedule), self.tracker.issued + self._unscheduled
        if self.stopped:
            expected = self.stopped.queries
        elif issued != expected:
            raise ResumableError(
                f"LoadGen issued {issued} queries, its published rules say {expected}: requests.npz and the "
                "logs disagree. Install the mlcommons-loadgen release that pyproject.toml names."
            )
        self._require_punctual()
        errors = [response.error for response in self.tracker.responses[:expected] if response.error]
        if len(errors) == expected:
            kinds, counts = np.unique(np.array(errors), return_counts=True)
            raise ResumableError(
                f"all {expected} requests failed, {counts.max()} of them with: {kinds[counts.argmax()]}. "
                f"Expected answers from {', '.join(self._settings.endpoint_urls)}. "
                "See the workers' logs and run again."
            )

    def _require_issues(self) -> None:
        """Raise ResumableError where LoadGen has stopped issuing queries."""
        overdue_s = self.tracker.overdue_ns(self._clock()) * 1e-9
        if overdue_s > OVERDUE_S:
            raise ResumableError(
                f"LoadGen has not issued query {self.tracker.issued}, which was due {overdue_s:.0f} s ago; "
                f"expected it within milliseconds. {_CLOCK_SET}"
            )

    def _require_punctual(self) -> None:
        """Raise ResumableError where many queries were issued late."""
        delays_s = self.tracker.issue_delay_ns() * 1e-9
        late = int((delays_s > LATE_S).sum())
        if late > MAX_LATE_FRAC * len(delays_s):
            raise ResumableError(
                f"LoadGen issued {late} of {len(delays_s)} queries more than {LATE_S:g} s late, up to "
                f"{delays_s.max():.1f} s; expected them within milliseconds. {_CLOCK_SET}"
            )

    def _run_loadgen(self) -> None:
        """Run LoadGen, or what stands in for it, in its thread; keep an exception for `watch`."""
        try:
            if self._issuer:
                self._issuer.run(self._issue)
            else:
                load, slo, last_ns = self._settings.load, self._settings.slo, self._schedule.arrival_ns[-1]
                run_loadgen(loadgen_settings(load, slo, int(last_ns)), self._folder, self._issue)
        except BaseException as error:  # of a thread: `watch` raises it in the one that waits
            self._error = error

    def _issue(self, response_id: int, _sample: int) -> None:
        """Pass a query on to the dispatcher; end one that the schedule does not have at once."""
        if self.tracker.issued < len(self._schedule):
            self._dispatcher.submit(self.tracker.note_issue(self._clock()), response_id)
        else:
            self._unscheduled += 1
            self._sink.first_token(response_id)
            self._sink.complete(response_id, 0)

    def _progress(self, started_ns: int) -> str:
        """Return the line of progress at this moment."""
        now_ns = self._clock()
        counts = self.tracker.progress(now_ns, limit_ns(self._settings.slo.ttft_p99_s))
        return (
            f"{(now_ns - started_ns) * 1e-9:6.0f} s  issued {counts.issued}/{len(self._schedule)}  "
            f"done {counts.answered}  in flight {counts.in_flight}  "
            f"late {counts.late}  errors {counts.errors}"
        )


def _own_issuer(load: Load, schedule: Schedule, clock: Clock) -> TraceReplay | UserLoop | None:
    """Return what issues the queries instead of LoadGen, which has no such scenario; None where it has."""
    if load.concurrency is not None:
        return UserLoop(len(schedule), load.concurrency)
    return TraceReplay(schedule.arrival_ns, clock) if load.trace else None


def _allow_open_files(needed: int) -> None:
    """Raise the soft limit of open files to `needed`.

    Raises ConfigurationError when the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"this process may open {hard} files, client_concurrency needs {needed}; raise the limit "
            f"(ulimit -Hn {needed}) or set load.client_concurrency to {max(1, hard - _OTHER_OPEN_FILES)}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
