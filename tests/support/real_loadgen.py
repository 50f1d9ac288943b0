"""Run the real LoadGen against a scripted endpoint, and read every time from its trace to the nanosecond.

As a script it runs one test: settings and fates of queries are given as JSON, LoadGen's logs go to a folder.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlperf_loadgen
import numpy as np

from tune.client.loadgen_driver import LoadGenSink, _test_settings
from tune.loadgen.run_settings import LoadGenSettings
from tune.records.requests import RequestLog

TOKENS = 5
"""Tokens of an answer without a fate; it is complete at once."""

_SAMPLE = re.compile(
    r'"name":"Sample",.*"ph":"b",.*"ts":([0-9.-]+),"args":\{"sample_seq":(\d+),.*"complete_ns":(\d+)'
)
_FIRST = re.compile(
    r'"name":"Token_Latency",.*"ts":([0-9.-]+),"args":\{ "issue_delay":(-?\d+),"issue_to_done":(\d+)'
)


@dataclass(frozen=True)
class Script:
    """Describe one test.

    `fates`: by number of the query, "ttft" or "tpot" for late_s of it, "one" for one token.

    `max_queries` ends the test early; 0 lets it run.
    """

    settings: LoadGenSettings
    late_s: float = 0.0
    fates: Mapping[int, str] = field(default_factory=dict)
    max_queries: int = 0

    def tokens(self, query: int) -> int:
        """Return the tokens of the answer to `query`."""
        return {"one": 1, "tpot": 2}.get(self.fates.get(query, ""), TOKENS)


class Endpoint:
    """Report tokens to LoadGen: at once in its own thread, late ones from a thread that waits for them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.issued = 0
        self.sink = LoadGenSink()
        self.late: queue.SimpleQueue[tuple[float, int, int]] = queue.SimpleQueue()
        threading.Thread(target=self._report_late, daemon=True).start()

    def issue(self, queries: list[mlperf_loadgen.QuerySample]) -> None:
        for query in queries:
            fate = self.script.fates.get(self.issued)
            if fate != "ttft":
                self.sink.first_token(query.id)
            if fate in ("ttft", "tpot"):
                self.late.put((time.monotonic() + self.script.late_s, query.id, self.issued))
            else:
                self.sink.complete(query.id, self.script.tokens(self.issued))
            self.issued += 1

    def _report_late(self) -> None:
        while True:
            due_s, response_id, query = self.late.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            if self.script.fates[query] == "ttft":
                self.sink.first_token(response_id)
            self.sink.complete(response_id, self.script.tokens(query))


def command(folder: Path, script: Script) -> list[str]:
    """Return the command line that runs `script` and leaves LoadGen's logs and trace in `folder`."""
    return [sys.executable, __file__, str(folder), json.dumps(asdict(script))]


def run_real_loadgen(folder: Path, script: Script) -> RequestLog:
    """Run `script` in an own process; return its requests as LoadGen timed them."""
    done = subprocess.run(command(folder, script), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return read_trace(folder / "mlperf_log_trace.json", script)


def read_trace(path: Path, script: Script) -> RequestLog:
    """Return the requests in order of issue; the trace states microseconds to three digits."""
    text = path.read_text()
    samples = sorted((int(seq), nanoseconds(at), int(latency)) for at, seq, latency in _SAMPLE.findall(text))
    ttft_ns = {nanoseconds(at): int(delay) + int(rest) for at, delay, rest in _FIRST.findall(text)}
    assert [seq for seq, _, _ in samples] == list(range(len(samples)))
    scheduled = np.array([at for _, at, _ in samples])
    first = scheduled + np.array([ttft_ns[at] for _, at, _ in samples])
    done = scheduled + np.array([latency for _, _, latency in samples])
    nothing = np.zeros(len(samples), np.int64)
    tokens = np.array([script.tokens(query) for query in range(len(samples))])
    start, error = scheduled[0], np.full(len(samples), "")
    return RequestLog(
        scheduled - start, first - start, done - start, nothing, tokens, nothing, nothing, error
    )


def nanoseconds(microseconds: str) -> int:
    whole, thousandths = microseconds.split(".")
    return int(whole + thousandths)


def main(folder: Path, given: dict[str, Any]) -> None:
    fates = {int(query): fate for query, fate in given.pop("fates").items()}
    script = Script(LoadGenSettings(**given.pop("settings")), fates=fates, **given)
    test = _test_settings(script.settings)
    test.max_query_count = script.max_queries
    output = mlperf_loadgen.LogOutputSettings()
    output.outdir = str(folder)
    log = mlperf_loadgen.LogSettings()
    log.log_output = output
    log.enable_trace = True
    samples = script.settings.samples
    sut = mlperf_loadgen.ConstructSUT(Endpoint(script).issue, lambda: None)
    qsl = mlperf_loadgen.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
    mlperf_loadgen.StartTestWithLogSettings(sut, qsl, test, log, str(folder / "no_audit.config"))
    mlperf_loadgen.DestroyQSL(qsl)
    mlperf_loadgen.DestroySUT(sut)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
