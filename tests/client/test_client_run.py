"""Whole runs of `python -m tune.client`, with the real LoadGen, against a server that keeps its own times."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.right_client import client_command, make_settings, run_command
from support.streaming_server import FAULTS, TEMPLATE_TOKENS, Seen, StreamingServer
from support.waiting import wait_for as wait_until

from tune.capacity.futility import find_futility
from tune.client.client_settings import STOPPED
from tune.client.prompts import Prompts
from tune.client.schedule import Schedule, draw_schedule
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.loadgen.latencies import answered
from tune.loadgen.log_reader import LoadGenFigures, read_logs
from tune.records.requests import RequestLog, read_requests
from tune.spec.load import MLPERF_SCHEDULE_SEED
from tune.workload.arrivals import generated_query_duration_ns


@dataclass
class Run:
    process: subprocess.CompletedProcess[str]
    out: Path
    schedule: Schedule
    seen: list[Seen]

    @property
    def log(self) -> RequestLog:
        return read_requests(self.out / "requests.npz")

    @property
    def figures(self) -> LoadGenFigures:
        return read_logs(self.out)

    def detail(self, key: str) -> Any:
        text = (self.out / "mlperf_log_detail.txt").read_text()
        return json.loads(re.findall(rf':::MLLOG (.*"key": "{key}".*)', text)[-1])["value"]


def run(folder: Path, server: StreamingServer, **changes: Any) -> Run:
    settings = make_settings(endpoint_url=server.url, **changes)
    process = run_command(client_command(folder, endpoint_url=server.url, **changes))
    return Run(process, folder / "out", draw_schedule(settings), server.seen)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with StreamingServer(first_token_s=0.03, tokens_per_event=3) as server:
        yield run(
            tmp_path_factory.mktemp("whole"), server, load__target_qps=250.0, load__min_queries=470,
            load__min_duration_s=1.5, slo__ttft_p99_s=20.0, slo__tpot_p99_s=5.0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A third of the requests go wrong, each kind of fault in turn."""
    with StreamingServer(fault_of=lambda n: None if n % 3 else FAULTS[n // 3 % len(FAULTS)]) as server:
        yield run(
            tmp_path_factory.mktemp("faulty"),
            server,
            load__request_timeout_s=0.5,
            load__response_timeout_s=1.5,
        )


@pytest.mark.slow
def test_a_run_ends_well_and_leaves_its_records_and_nothing_else(whole: Run) -> None:
    assert whole.process.returncode == 0, whole.process.stderr
    assert whole.process.stdout == ""
    names = sorted(path.name for path in whole.out.iterdir())
    assert names == ["mlperf_log_detail.txt", "mlperf_log_summary.txt", "requests.npz"]
    count = len(whole.schedule)
    assert f"issued {count}/{count}  done {count}  in flight 0  late 0  errors 0" in whole.process.stderr


def test_loadgen_issues_the_schedule_that_was_drawn(whole: Run) -> None:
    assert whole.detail("generated_query_count") == len(whole.schedule) == 480
    gaps_ns = generated_query_duration_ns(480, 250.0, MLPERF_SCHEDULE_SEED)
    assert whole.detail("generated_query_duration") == pytest.approx(gaps_ns, abs=480)
    assert whole.detail("result_scheduled_samples_per_sec") == pytest.approx(
        479 / whole.schedule.arrival_ns[-1] * 1e9, rel=1e-5
    )


def test_every_query_was_asked_once_with_its_own_lengths(whole: Run) -> None:
    settings, schedule = make_settings(), whole.schedule
    prompts = Prompts(settings.served_model_name, settings.load, schedule)
    asked = {(tuple(one.body["prompt"]), one.body["max_tokens"]) for one in whole.seen}
    expected = set()
    for position in range(len(schedule)):
        body = json.loads(prompts.body(position))
        expected.add((tuple(body["prompt"]), body["max_tokens"]))
    assert len(whole.seen) == len(schedule)
    assert asked == expected


def test_the_record_the_log_and_the_server_agree(whole: Run) -> None:
    log, figures = whole.log, whole.figures
    assert answered(log).all()
    assert (log.scheduled_ns == whole.schedule.arrival_ns).all()
    assert sorted(log.output_tokens) == sorted(one.body["max_tokens"] for one in whole.seen)
    assert figures.errors == 0
    assert figures.queries == len(log)
    tokens = int(log.output_tokens.sum())
    assert figures.tps is not None
    assert figures.completed_qps is not None
    assert figures.tps / figures.completed_qps == pytest.approx(tokens / (len(log) - 1), rel=1e-5)
    assert figures.tps <= tokens / log.done_ns[-1] * 1e9 * 1.001


def test_the_start_of_the_test_is_known_in_epoch_time(whole: Run) -> None:
    """No request arrives before it is due; 10 ms for the two clocks, a minute for whatever delays it."""
    assert whole.log.began_at_s is not None
    first_arrived_s = time.time() - (time.monotonic_ns() - whole.seen[0].arrived_ns) * 1e-9
    assert -0.01 <= first_arrived_s - whole.log.began_at_s <= 60


def test_times_grow_from_the_server_over_the_record_to_loadgen(whole: Run) -> None:
    """Each later span includes the earlier one; 1 ms for how well the start of the test is known."""
    log, figures = whole.log, whole.figures
    at_server = np.array([one.first_write_ns - one.arrived_ns for one in whole.seen]).mean() * 1e-9
    end_at_server = np.array([one.end_write_ns - one.arrived_ns for one in whole.seen]).mean() * 1e-9
    recorded = (log.first_token_ns - log.scheduled_ns).mean() * 1e-9
    end_recorded = (log.done_ns - log.scheduled_ns).mean() * 1e-9
    assert figures.ttft_s is not None
    assert figures.latency_s is not None
    assert at_server <= recorded <= (figures.ttft_s.mean or 0) + 1e-3
    assert end_at_server <= end_recorded <= (figures.latency_s.mean or 0) + 1e-3


def test_loadgen_ran_with_the_benchmarks_settings(whole: Run) -> None:
    assert whole.detail("requested_scenario") == "Server"
    assert whole.detail("requested_use_token_latencies") is True
    assert whole.detail("requested_server_ttft_latency") == 20_000_000_000
    assert whole.detail("requested_server_tpot_latency") == 5_000_000_000
    assert whole.detail("requested_schedule_rng_seed") == 18209322760996052031
    assert whole.detail("requested_sample_index_rng_seed") == 14771362308971278857
    assert whole.detail("requested_qsl_rng_seed") == 1780908523862526354
    assert whole.detail("effective_sample_concatenate_permutation") is True
    assert whole.detail("effective_min_duration_ms") == 1500
    assert whole.figures.result == "VALID"


@pytest.mark.slow
def test_faults_are_errors_and_no_success_is_fast(faulty: Run) -> None:
    assert faulty.process.returncode == 0, faulty.process.stderr
    log, figures = faulty.log, faulty.figures
    wrong = sum(1 for one in faulty.seen if one.fault)
    assert int((log.error != "").sum()) == wrong == int((~answered(log)).sum())
    assert (log.done_ns[log.error != ""] == -1).all()
    assert (log.output_tokens[log.error != ""] == 0).all()
    assert figures.result == "INVALID"
    assert figures.perf_constraints_met is False
    never_began = int((log.first_token_ns < 0).sum())
    assert figures.errors == never_began > 0
    assert figures.ttft_s is not None
    assert figures.ttft_s.p99 is not None
    assert figures.ttft_s.p99 > 0.4


@pytest.mark.slow
def test_a_run_with_its_limits_lifted_and_its_own_seed(tmp_path: Path) -> None:
    with StreamingServer() as server:
        done = run(
            tmp_path, server, slo__ttft_p99_s=None, slo__tpot_p99_s=None, load__seed=7,
            load__target_qps=300.0, load__concatenate_permutation=False, load__min_duration_s=0.5,
            load__min_queries=50,
        )  # fmt: skip
    assert done.process.returncode == 0, done.process.stderr
    assert len(done.log) == len(done.schedule) == 150
    assert done.detail("requested_schedule_rng_seed") == 7
    assert (done.figures.ttft_limit_s, done.figures.tpot_limit_s) == (None, None)
    assert done.figures.min_duration_met is True


def test_when_every_request_fails_the_run_is_to_be_repeated(tmp_path: Path) -> None:
    with StreamingServer(fault_of=lambda _: "http") as server:
        done = run(
            tmp_path,
            server,
            slo__ttft_p99_s=0.01,
            load__target_qps=500.0,
            load__min_queries=40,
            load__min_duration_s=0.01,
        )
    assert done.process.returncode == 3
    assert "all 40 requests failed, 40 of them with: http 503: no worker left" in done.process.stderr
    assert not answered(done.log).any()
    assert len(done.log) == 40


@pytest.mark.slow
def test_a_run_that_can_hold_no_more_ends_with_the_record_that_shows_it(tmp_path: Path) -> None:
    """A tenth of the requests are late, some of them without an answer."""
    changes = {
        "load__target_qps": 250.0,
        "load__min_duration_s": 60.0,
        "slo__ttft_p99_s": 0.3,
        "slo__tpot_p99_s": None,
        "stop_when_hopeless": True,
    }
    faults = {0: "late", 10: "http"}
    with StreamingServer(late_s=0.5, fault_of=lambda n: faults.get(n % 20)) as server:
        done = run(tmp_path, server, **changes)
    assert done.process.returncode == STOPPED, done.process.stderr
    settings, log = make_settings(**changes), done.log
    certain = find_futility(log, settings.slo, len(done.schedule))
    assert certain is not None
    assert certain.queries == len(log)
    assert MIN_QUERIES <= len(log) < len(server.seen) < len(done.schedule) / 2
    assert (log.scheduled_ns == done.schedule.arrival_ns[: len(log)]).all()
    assert "interrupted" not in log.error
    assert f"of the first {len(log)} requests are late" in done.process.stderr
    assert not list(done.out.glob("mlperf_log_*"))


@pytest.mark.slow
def test_a_run_that_may_hold_is_not_stopped(tmp_path: Path) -> None:
    """It lasts longer than the time between two looks; 4 of 1,560 requests are late, 6 are forgiven."""
    with StreamingServer(late_s=0.9, fault_of=lambda n: "late" if n % 400 == 7 else None) as server:
        done = run(tmp_path, server, load__min_duration_s=8.0, slo__ttft_p99_s=0.8, stop_when_hopeless=True)
    assert done.process.returncode == 0, done.process.stderr
    assert len(done.log) == len(done.schedule) == 1560
    assert done.figures.queries == 1560


@pytest.mark.slow
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_run_of_the_benchmarks_own_prompts(tmp_path: Path, root: Path, api: str) -> None:
    """The engine ends every other answer before the longest, which is no error."""
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    own = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "samples": 8}
    changes = {f"load__dataset__{name}": value for name, value in own.items()}
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: "short" if n % 2 else None) as server:
        done = run(
            tmp_path,
            server,
            load__api=api,
            load__min_queries=16,
            load__min_duration_s=0.05,
            slo__ttft_p99_s=20.0,
            slo__tpot_p99_s=20.0,
            **changes,
        )
    assert done.process.returncode == 0, done.process.stderr
    log = done.log
    assert len(log) == len(done.schedule) == 16
    assert answered(log).all()
    assert sorted(set(log.output_tokens.tolist())) == [29, 30]
    assert done.detail("effective_performance_sample_count") == 8
    assert log.input_tokens.sum() == sum(len(one.prompt) + TEMPLATE_TOKENS * one.chat for one in server.seen)


def test_what_loadgens_thread_raises_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "loadgen.tmp").write_text("a file where LoadGen's logs are to be collected")
    with StreamingServer() as server:
        done = run(tmp_path, server)
    assert done.process.returncode == 3
    assert "FileExistsError" in done.process.stderr
    assert len(done.log) == 0


BROKEN_CLOCK = """
import os, sys, time
from pathlib import Path
from tune.client.run import run_client
from tune.client.settings import read_client_settings

def clock():
    if sys._getframe(1).f_code.co_name == "tell_first":
        raise RuntimeError("the clock stopped")
    return time.monotonic_ns()

try:
    run_client(read_client_settings(Path(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]), clock, time.time, print)
except RuntimeError as error:
    print(f"raised: {error}", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_what_the_streaming_thread_raises_ends_the_run_and_leaves_the_record(tmp_path: Path) -> None:
    """It takes until the next line of progress; LoadGen alone would wait for ever."""
    with StreamingServer() as server:
        _, _, _, path, _, url, _, out = client_command(tmp_path, endpoint_url=server.url)
        done = run_command([sys.executable, "-c", BROKEN_CLOCK, path, url, out])
    assert "raised: the clock stopped" in done.stdout, done.stderr
    log = read_requests(tmp_path / "out" / "requests.npz")
    assert "interrupted" in log.error


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_what_is_known(tmp_path: Path, sent: signal.Signals) -> None:
    with StreamingServer(first_token_s=0.05, fault_of=lambda n: "hang" if n % 2 else None) as server:
        command = client_command(tmp_path, endpoint_url=server.url, load__min_duration_s=600.0)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mlperf_log_summary.txt").write_text("of an earlier run")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(server.seen) > 40)
        process.send_signal(sent)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted" in said
    log = read_requests(tmp_path / "out" / "requests.npz")
    assert len(log) > 40
    assert set(log.error) == {"", "interrupted"}
    assert not (tmp_path / "out" / "mlperf_log_summary.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"load__target_qps": "fast"}, 2, "load.target_qps"),
        ({"load__dataset__path": "/nowhere.csv"}, 2, r"nowhere\.csv"),
        ({"load__client_concurrency": 2**40}, 2, "client_concurrency needs"),
        ({"endpoint_url": "http://127.0.0.1:9/v1"}, 3, "expected the model 'llama' at http://127.0.0.1:9/v1"),
    ],
)
def test_what_cannot_run_says_so_once(tmp_path: Path, changes: dict[str, Any], code: int, said: str) -> None:
    process = run_command(client_command(tmp_path, **changes))
    assert process.returncode == code, process.stderr
    assert re.search(said, process.stderr)
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out" / "requests.npz").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    process = run_command(client_command(tmp_path))
    assert process.returncode == 2
    assert "--out" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["client.json"], ["a", "b", "--out", "c"]])
def test_a_wrong_command_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    command = client_command(tmp_path)[:3]
    assert run_command([*command, *arguments]).returncode == 2
