"""Test that the client replays a trace at its own times, and leaves the records of any other run."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.client_runs import Run, run
from support.streaming_server import StreamingServer

from tune.client.trace_replay import TraceReplay
from tune.spec.load import Trace
from tune.workload.length_files import read_rows

_MS = Trace(time_unit="ms")


class FakeClock:
    """Count the nanoseconds that sleeping takes, and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**12
        monkeypatch.setattr("tune.client.trace_replay.time.sleep", self._sleep)

    def __call__(self) -> int:
        return self.now_ns

    def _sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def test_queries_are_issued_when_they_are_due_and_all_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    arrival_ns = np.array([0, 5, 5, 10**9, 60 * 10**9])
    replay, issued = TraceReplay(arrival_ns, clock), []
    thread = threading.Thread(
        target=replay.run, args=(lambda position, _: issued.append((position, clock())),)
    )
    thread.start()
    for position in range(4):
        replay.complete(position, 1)
    thread.join(0.2)
    assert thread.is_alive(), "one query is open"
    replay.complete(4, 1)
    thread.join(10)
    assert not thread.is_alive()
    assert issued == [(position, 10**12 + due) for position, due in enumerate(arrival_ns.tolist())]


@pytest.fixture(scope="module")
def trace_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("trace")
    trace = folder / "trace.csv"
    rows = [f"{9 + i // 100 * 900 + i},{20 + i % 40},{2 + i % 9}" for i in range(480)]
    trace.write_text("timestamp,input_tokens,output_tokens\n" + "\n".join(rows))
    with StreamingServer(first_token_s=0.02, tokens_per_event=3) as server:
        finished = run(
            folder, server, load__target_qps=read_rows(trace, _MS).mean_qps, load__min_duration_s=0.1,
            load__trace={"time_unit": "ms"}, load__dataset__path=str(trace), load__dataset__samples=480,
            load__dataset__inputs=None, load__dataset__outputs=None, slo__ttft_p99_s=20.0,
        )  # fmt: skip
    return finished, trace


@pytest.mark.slow
def test_a_trace_is_served_in_its_order_and_recorded_like_any_run(trace_run: tuple[Run, Path]) -> None:
    finished, trace = trace_run
    rows = read_rows(trace, _MS)
    assert finished.process.returncode == 0, finished.process.stderr
    names = sorted(path.name for path in finished.out.iterdir())
    assert names == ["mlperf_log_detail.txt", "mlperf_log_summary.txt", "requests.npz"]
    log = finished.log
    assert rows.time_s is not None
    assert log.scheduled_ns == pytest.approx(rows.time_s * 1e9, abs=1)
    assert np.array_equal(log.input_tokens, rows.inputs)
    assert np.array_equal(log.output_tokens, rows.outputs)
    assert "The trace issued its queries at most" in finished.process.stderr
    assert (finished.figures.result, finished.figures.queries) == ("VALID", 480)
