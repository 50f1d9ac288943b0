"""One run of the load client, from the check of the endpoint to the record in its folder."""

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
from tune.client.client_settings import ClientSettings
from tune.client.endpoint import check_endpoint
from tune.client.futility_monitor import FutilityMonitor
from tune.client.http_exchange import Clock
from tune.client.loadgen_driver import LoadGenSink, run_loadgen
from tune.client.prompts import Prompts
from tune.client.request_dispatcher import RequestDispatcher
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import Schedule, draw_schedule
from tune.errors import ConfigurationError, ResumableError
from tune.loadgen.log_writer import DETAIL_LOG, SUMMARY_LOG
from tune.loadgen.run_settings import loadgen_settings
from tune.records.requests import RequestLog, first_requests, write_requests

PrintLine = Callable[[str], None]

_PROGRESS_EVERY_S = 5.0
_OTHER_FILES = 64


def run_client(
    settings: ClientSettings, folder: Path, clock: Clock, epoch_s: Callable[[], float], say: PrintLine
) -> Futility | None:
    """Drive the endpoint with LoadGen and leave its logs and requests.npz in `folder`.

    `clock` counts nanoseconds and never jumps, `epoch_s` tells the seconds since the epoch.
    Returns why the run was stopped where `settings` ask for that: `requests.npz` then holds the requests up
    to where it was certain, and LoadGen's logs are absent. It is also written when the run is interrupted
    (KeyboardInterrupt goes on to the caller).
    LoadGen cannot be stopped, so after an exception or a stopped run the caller must end the process.
    Raises ConfigurationError for settings that cannot be run here, ResumableError when the endpoint does not serve the
    model, when every request failed, or when LoadGen did not issue the queries that were scheduled.
    """
    schedule = draw_schedule(settings)
    _allow_open_files(settings.load.client_concurrency + _OTHER_FILES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--out {folder}: no folder and none can be made ({error.strerror})."
        ) from error
    asyncio.run(check_endpoint(settings))
    for name in (DETAIL_LOG, SUMMARY_LOG, REQUESTS_FILE):
        (folder / name).unlink(missing_ok=True)  # of an earlier run: two runs must not look like one
    drive = _Drive(settings, schedule, folder, clock)
    lasts_s = schedule.arrival_ns[-1] * 1e-9
    say(f"{len(schedule)} queries over {lasts_s:.1f} s at {settings.load.target_qps:g}/s")
    try:
        drive.watch(say)
    finally:
        write_requests(folder / REQUESTS_FILE, drive.record(epoch_s()))
    drive.judge()
    return drive.stopped


class _Drive:
    """LoadGen in one thread, the streams in another, their shared ledger.

    `stopped`: why the run was, None for one that came to its end.
    """

    def __init__(self, settings: ClientSettings, schedule: Schedule, folder: Path, clock: Clock) -> None:
        self.ledger = RequestTracker(schedule, sends_ids=settings.load.api == "completions")
        self.stopped: Futility | None = None
        self._outlook = FutilityMonitor(self.ledger, settings.slo)
        self._settings, self._schedule, self._folder, self._clock = settings, schedule, folder, clock
        self._loadgen = loadgen_settings(settings.load, settings.slo, int(schedule.arrival_ns[-1]))
        self._reports = LoadGenSink()
        prompts = Prompts(
            settings.served_model_name,
            settings.load,
            schedule,
            nvext=settings.nvext,
            earlier_runs=settings.earlier_runs,
        )
        self._streams = RequestDispatcher(settings, self.ledger, prompts, self._reports, clock)
        self._thread = threading.Thread(target=self._run_loadgen, name="loadgen", daemon=True)
        self._error: BaseException | None = None
        self._unscheduled = 0

    def watch(self, say: PrintLine) -> None:
        """Run to the end, with a line of progress every few seconds. Raises what a thread of ours raised.

        Where the settings say so, returns as soon as the run cannot hold its SLO; LoadGen then goes on.
        """
        gc.collect()
        gc.freeze()  # a full collection that walks the imports and the ledger would delay first tokens
        self._streams.start()
        self._thread.start()
        began_ns = self._clock()
        while self._thread.is_alive():
            self._thread.join(_PROGRESS_EVERY_S)
            say(self._progress(began_ns))
            self._streams.check()
            if self._settings.stop_when_hopeless and self._thread.is_alive():
                self.stopped = self._outlook.hopeless()
            if self.stopped:
                say(f"stopped: too many of the first {self.stopped.queries} requests are late for the SLO")
                return
        if self._error:
            raise self._error
        self._streams.stop()
        say(f"LoadGen issued its queries at most {self.ledger.issue_delay_ns().max() * 1e-6:.1f} ms late")

    def record(self, now_s: float) -> RequestLog:
        """What is known of every query at `now_s`, seconds since the epoch; of a stopped run, of those that
        made it certain."""
        log = self.ledger.to_log()
        if self.stopped:
            log = first_requests(log, self.stopped.queries)
        began_at_s = now_s - (self._clock() - self.ledger.start_ns) * 1e-9
        return replace(log, began_at_s=began_at_s) if len(log) else log

    def judge(self) -> None:
        """Raises ResumableError when the run says nothing about the deployment."""
        expected, issued = len(self._schedule), self.ledger.issued + self._unscheduled
        if self.stopped:
            expected = self.stopped.queries
        elif issued != expected:
            raise ResumableError(
                f"LoadGen issued {issued} queries, its published rules say {expected}: requests.npz and the "
                "logs disagree. Install the mlcommons-loadgen release that pyproject.toml names."
            )
        errors = [answer.error for answer in self.ledger.answers[:expected] if answer.error]
        if len(errors) == expected:
            kinds, counts = np.unique(np.array(errors), return_counts=True)
            raise ResumableError(
                f"all {expected} requests failed, {counts.max()} of them with: {kinds[counts.argmax()]}. "
                f"Expected answers from {self._settings.endpoint_url}. See the workers' logs and run again."
            )

    def _run_loadgen(self) -> None:
        try:
            run_loadgen(self._loadgen, self._folder, self._issue)
        except BaseException as error:
            self._error = error

    def _issue(self, response_id: int) -> None:
        if self.ledger.issued < len(self._schedule):
            self._streams.submit(self.ledger.note_issue(self._clock()), response_id)
        else:
            self._unscheduled += 1
            self._reports.first_token(response_id)
            self._reports.complete(response_id, 0)

    def _progress(self, began_ns: int) -> str:
        now_ns = self._clock()
        p = self.ledger.progress(now_ns, self._loadgen.ttft_limit_ns)
        return (
            f"{(now_ns - began_ns) * 1e-9:6.0f} s  issued {p.issued}/{len(self._schedule)}  "
            f"done {p.answered}  in flight {p.in_flight}  late {p.late}  errors {p.errors}"
        )


def _allow_open_files(needed: int) -> None:
    """Raise the soft limit of open files to `needed`. Raises ConfigurationError when the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"this process may open {hard} files, client_concurrency needs {needed}; raise the limit "
            f"(ulimit -Hn {needed}) or set load.client_concurrency to {max(1, hard - _OTHER_FILES)}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
