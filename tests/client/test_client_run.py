"""Run `python -m tune.client` with the real LoadGen against a server that keeps its own times."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.client_runs import Run, run
from support.right_client import make_settings
from support.streaming_server import FAULTS, TEMPLATE_TOKENS, StreamingServer

from tune.capacity.futility import find_futility
from tune.client.client_settings import STOPPED_EXIT_CODE
from tune.client.prompts import Prompts
from tune.loadgen.early_stopping import MIN_QUERIES
from tune.loadgen.latencies import answered
from tune.spec.load import MLPERF_SCHEDULE_SEED
from tune.workload.arrivals import generated_query_duration_ns

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with StreamingServer(first_token_s=0.03, tokens_per_event=3) as server:
        yield run(
            tmp_path_factory.mktemp("complete"), server, load__target_qps=250.0, load__min_queries=470,
            load__min_duration_s=1.5, slo__ttft_p99_s=20.0, slo__tpot_p99_s=5.0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def faulty_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run with faults in a third of the requests, each kind in turn; no other request times out."""
    with StreamingServer(fault_of=lambda n: None if n % 3 else FAULTS[n // 3 % len(FAULTS)]) as server:
        yield run(
            tmp_path_factory.mktemp("faulty"),
            server,
            load__request_timeout_s=30.0,
            load__response_timeout_s=30.0,
        )


def test_complete_run_leaves_exactly_its_records(complete_run: Run) -> None:
    assert complete_run.process.returncode == 0, complete_run.process.stderr
    assert complete_run.process.stdout == ""
    names = sorted(path.name for path in complete_run.out.iterdir())
    assert names == ["mlperf_log_detail.txt", "mlperf_log_summary.txt", "requests.npz"]
    count = len(complete_run.schedule)
    assert (
        f"issued {count}/{count}  done {count}  in flight 0  late 0  errors 0" in complete_run.process.stderr
    )


def test_loadgen_issues_the_drawn_schedule(complete_run: Run) -> None:
    assert complete_run.detail("generated_query_count") == len(complete_run.schedule) == 480
    gaps_ns = generated_query_duration_ns(480, 250.0, MLPERF_SCHEDULE_SEED)
    assert complete_run.detail("generated_query_duration") == pytest.approx(gaps_ns, abs=480)
    assert complete_run.detail("result_scheduled_samples_per_sec") == pytest.approx(
        479 / complete_run.schedule.arrival_ns[-1] * 1e9, rel=1e-5
    )


def test_each_query_is_sent_once_with_its_lengths(complete_run: Run) -> None:
    settings, schedule = make_settings(), complete_run.schedule
    prompts = Prompts(settings.served_model_name, settings.load, schedule)
    sent = {(tuple(request.body["prompt"]), request.body["max_tokens"]) for request in complete_run.seen}
    expected = set()
    for position in range(len(schedule)):
        body = json.loads(prompts.body(position))
        expected.add((tuple(body["prompt"]), body["max_tokens"]))
    assert len(complete_run.seen) == len(schedule)
    assert sent == expected


def test_record_log_and_server_agree(complete_run: Run) -> None:
    log, figures = complete_run.log, complete_run.figures
    assert answered(log).all()
    assert (log.scheduled_ns == complete_run.schedule.arrival_ns).all()
    assert sorted(log.output_tokens) == sorted(request.body["max_tokens"] for request in complete_run.seen)
    assert figures.errors == 0
    assert figures.queries == len(log)
    tokens = int(log.output_tokens.sum())
    assert figures.tps is not None
    assert figures.completed_qps is not None
    assert figures.tps / figures.completed_qps == pytest.approx(tokens / (len(log) - 1), rel=1e-5)
    assert figures.tps <= tokens / log.done_ns[-1] * 1e9 * 1.001


def test_record_states_the_start_in_epoch_time(complete_run: Run) -> None:
    """No request arrives before it is due; 10 ms are for the two clocks, a minute is for any delay."""
    assert complete_run.log.began_at_s is not None
    since_s = (time.monotonic_ns() - complete_run.seen[0].arrived_ns) * 1e-9
    first_arrived_s = time.time() - since_s  # read last: a delay before it makes the arrival later
    assert -0.01 <= first_arrived_s - complete_run.log.began_at_s <= 60


def test_record_states_when_requests_were_sent_and_how_busy_the_client_was(complete_run: Run) -> None:
    log = complete_run.log
    assert log.sent_ns is not None
    assert (log.sent_ns >= log.scheduled_ns).all()
    assert (log.sent_ns < log.first_token_ns).all()
    assert log.client_busy_frac is not None
    assert 0 < log.client_busy_frac < 1


def test_times_grow_from_server_to_record_to_loadgen(complete_run: Run) -> None:
    """Each later span includes the earlier one; 1 ms is the error of the start of the test."""
    log, figures = complete_run.log, complete_run.figures
    seen = complete_run.seen
    at_server = np.array([request.first_write_ns - request.arrived_ns for request in seen]).mean() * 1e-9
    end_at_server = np.array([request.end_write_ns - request.arrived_ns for request in seen]).mean() * 1e-9
    recorded = (log.first_token_ns - log.scheduled_ns).mean() * 1e-9
    end_recorded = (log.done_ns - log.scheduled_ns).mean() * 1e-9
    assert figures.ttft_s is not None
    assert figures.latency_s is not None
    assert at_server <= recorded <= (figures.ttft_s.mean or 0) + 1e-3
    assert end_at_server <= end_recorded <= (figures.latency_s.mean or 0) + 1e-3


def test_loadgen_runs_with_the_benchmark_settings(complete_run: Run) -> None:
    assert complete_run.detail("requested_scenario") == "Server"
    assert complete_run.detail("requested_use_token_latencies") is True
    assert complete_run.detail("requested_server_ttft_latency") == 20_000_000_000
    assert complete_run.detail("requested_server_tpot_latency") == 5_000_000_000
    assert complete_run.detail("requested_schedule_rng_seed") == 18209322760996052031
    assert complete_run.detail("requested_sample_index_rng_seed") == 14771362308971278857
    assert complete_run.detail("requested_qsl_rng_seed") == 1780908523862526354
    assert complete_run.detail("effective_sample_concatenate_permutation") is True
    assert complete_run.detail("effective_min_duration_ms") == 1500
    assert complete_run.figures.result == "VALID"


def test_each_fault_is_recorded_as_an_error(faulty_run: Run) -> None:
    assert faulty_run.process.returncode == 0, faulty_run.process.stderr
    log, figures = faulty_run.log, faulty_run.figures
    wrong = sum(1 for request in faulty_run.seen if request.fault)
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


def test_run_without_limits_uses_its_own_seed(tmp_path: Path) -> None:
    with StreamingServer() as server:
        result = run(
            tmp_path, server, slo__ttft_p99_s=None, slo__tpot_p99_s=None, load__seed=7,
            load__target_qps=300.0, load__concatenate_permutation=False, load__min_duration_s=0.5,
            load__min_queries=50,
        )  # fmt: skip
    assert result.process.returncode == 0, result.process.stderr
    assert len(result.log) == len(result.schedule) == 150
    assert result.detail("requested_schedule_rng_seed") == 7
    assert (result.figures.ttft_limit_s, result.figures.tpot_limit_s) == (None, None)
    assert result.figures.min_duration_met is True


def test_run_fails_when_every_request_fails(tmp_path: Path) -> None:
    with StreamingServer(fault_of=lambda _: "http") as server:
        result = run(
            tmp_path,
            server,
            slo__ttft_p99_s=0.01,
            load__target_qps=500.0,
            load__min_queries=40,
            load__min_duration_s=0.01,
        )
    assert result.process.returncode == 3
    assert "all 40 requests failed, 40 of them with: http 503: no worker left" in result.process.stderr
    assert not answered(result.log).any()
    assert len(result.log) == 40


def test_futile_run_stops_with_the_record_that_proves_it(tmp_path: Path) -> None:
    """A tenth of the requests are late or fail."""
    changes = {
        "load__target_qps": 250.0,
        "load__min_duration_s": 60.0,
        "slo__ttft_p99_s": 0.3,
        "slo__tpot_p99_s": None,
        "stop_when_futile": True,
    }
    faults = {0: "late", 10: "http"}
    with StreamingServer(late_s=0.5, fault_of=lambda n: faults.get(n % 20)) as server:
        result = run(tmp_path, server, **changes)
    assert result.process.returncode == STOPPED_EXIT_CODE, result.process.stderr
    settings, log = make_settings(**changes), result.log
    certain = find_futility(log, settings.slo, len(result.schedule))
    assert certain is not None
    assert certain.queries == len(log)
    assert MIN_QUERIES <= len(log) < len(server.seen) < len(result.schedule) / 2
    assert (log.scheduled_ns == result.schedule.arrival_ns[: len(log)]).all()
    assert "interrupted" not in log.error
    assert f"of the first {len(log)} requests are late" in result.process.stderr
    assert not list(result.out.glob("mlperf_log_*"))


def test_run_that_may_still_hold_is_not_stopped(tmp_path: Path) -> None:
    """The run lasts longer than the time between two checks; 4 of 1,560 requests fail, 6 are forgiven.

    Only the failures break a limit, however busy the machine is. Each is reported when it is late for
    `tpot_p99_s`, for which the run waits.
    """
    with StreamingServer(fault_of=lambda n: "half" if n % 400 == 7 else None) as server:
        result = run(
            tmp_path,
            server,
            load__min_duration_s=8.0,
            slo__ttft_p99_s=3600.0,
            slo__tpot_p99_s=10.0,
            stop_when_futile=True,
        )
    assert result.process.returncode == 0, result.process.stderr
    assert len(result.log) == len(result.schedule) == 1560
    assert result.figures.queries == 1560


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_run_with_benchmark_prompts_accepts_early_ends(tmp_path: Path, root: Path, api: str) -> None:
    """The engine ends every other answer before the longest, which is no error."""
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    own = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "samples": 8}
    changes = {f"load__dataset__{name}": value for name, value in own.items()}
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: "short" if n % 2 else None) as server:
        result = run(
            tmp_path,
            server,
            load__api=api,
            load__min_queries=16,
            load__min_duration_s=0.05,
            slo__ttft_p99_s=20.0,
            slo__tpot_p99_s=20.0,
            **changes,
        )
    assert result.process.returncode == 0, result.process.stderr
    log = result.log
    assert len(log) == len(result.schedule) == 16
    assert answered(log).all()
    assert sorted(set(log.output_tokens.tolist())) == [29, 30]
    assert result.detail("effective_performance_sample_count") == 8
    assert log.input_tokens.sum() == sum(
        len(request.prompt) + TEMPLATE_TOKENS * request.chat for request in server.seen
    )
