"""Compare the logs of the real LoadGen with those written from the record of the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.right_client import client_command, make_settings, run_command
from support.streaming_server import StreamingServer

from tune.loadgen.log_reader import LoadGenFigures, read_logs
from tune.loadgen.log_writer import write_logs
from tune.records.requests import RequestLog, read_requests
from tune.workload.arrivals import generated_query_duration_ns

MEASURED = {"loadgen_version", "completed_qps", "tps", "scheduled_tps", "ttft_s", "tpot_s", "latency_s"}
"""Figures that depend on the moment of a report; both logs must agree in all others."""

PROBE: dict[str, Any] = {
    "load__concatenate_permutation": False,
    "load__target_qps": 400.0,
    "slo__ttft_p99_s": 1.0,
    "slo__tpot_p99_s": 0.5,
}


@dataclass
class LogPair:
    """Hold the record of a run, and the folders of LoadGen's logs and of the written ones."""

    log: RequestLog
    loadgen_folder: Path
    written_folder: Path

    @property
    def figures(self) -> tuple[LoadGenFigures, LoadGenFigures]:
        return read_logs(self.loadgen_folder), read_logs(self.written_folder)


def run_and_write(folder: Path, faults: Mapping[int, str], **changes: Any) -> LogPair:
    """Run the client on a server whose n-th request meets `faults[n]`; write logs from its record."""
    settings = make_settings(**changes)
    late_s = 1.2 * (settings.slo.ttft_p99_s or 0.0)
    with StreamingServer(fault_of=faults.get, late_s=late_s) as server:
        process = run_command(client_command(folder, endpoint_urls=[server.url], **changes))
    assert process.returncode == 0, process.stderr
    load, log = settings.load, read_requests(folder / "out" / "requests.npz")
    gaps_ns = generated_query_duration_ns(len(log), load.target_qps, load.schedule_seed)
    (folder / "written").mkdir()
    write_logs(folder / "written", log, load, settings.slo, gaps_ns)
    return LogPair(log, folder / "out", folder / "written")


def assert_same(pair: LogPair) -> LoadGenFigures:
    expected, actual = (figures.model_dump(exclude=MEASURED) for figures in pair.figures)
    queries = len(pair.log)
    assert actual == expected
    stated, written = (stated_settings(folder) for folder in (pair.loadgen_folder, pair.written_folder))
    assert written == {key: stated[key] for key in written}
    real, simulated = pair.figures
    assert tokens(simulated, queries) == pytest.approx(tokens(real, queries), rel=1e-5)
    assert real.scheduled_tps <= simulated.scheduled_tps * (1 + 1e-5)
    return simulated


def stated_settings(folder: Path) -> dict[str, Any]:
    lines = (folder / "mlperf_log_detail.txt").read_text().splitlines()
    records = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {r["key"]: r["value"] for r in records if r["key"].startswith(("requested_", "effective_"))}


def tokens(figures: LoadGenFigures, queries: int) -> float:
    return figures.tps / figures.completed_qps * (queries - 1)


@pytest.mark.slow
def test_logs_agree_on_a_short_run_with_three_faults(tmp_path: Path) -> None:
    faults = {100: "late", 200: "http", 300: "half"}
    pair = run_and_write(tmp_path, faults, **PROBE, load__min_duration_s=1.2, load__min_queries=1)
    figures = assert_same(pair)
    assert len(pair.log) == 480
    assert pair.log.scheduled_ns[-1] < 1.2e9
    assert figures.min_duration_met is True
    assert figures.min_queries_met is True
    assert figures.early_stopping_met is False
    assert figures.errors == 1
    assert figures.early_stopping_tpot.startswith("* Run unsuccessful.")


@pytest.mark.slow
def test_logs_agree_on_a_run_that_forgives_its_faults(tmp_path: Path) -> None:
    faults = {100: "late", 200: "http", 300: "half", 400: "no_usage"}
    pair = run_and_write(tmp_path, faults, **PROBE | {"slo__ttft_p99_s": 4.0, "slo__tpot_p99_s": 3.0},
                load__seed=3, load__min_duration_s=2.25, load__min_queries=1)  # fmt: skip
    figures = assert_same(pair)
    assert pair.log.scheduled_ns[-1] > 2.25e9
    assert figures.min_duration_s == 2.25
    assert (figures.result, figures.errors) == ("VALID", 1)


@pytest.mark.slow
def test_logs_agree_on_whole_passes_that_miss_both_limits(tmp_path: Path) -> None:
    faults = {n: ("http", "late", "half", "zero_usage")[n % 4] for n in range(0, 480, 5)}
    pair = run_and_write(tmp_path, faults, load__target_qps=250.0, load__min_duration_s=1.5,
                load__min_queries=470, slo__ttft_p99_s=1.0, slo__tpot_p99_s=0.5)  # fmt: skip
    figures = assert_same(pair)
    assert len(pair.log) == 480
    assert figures.invalid_reason.count("constrain not met") == 2
    assert figures.early_stopping_ttft == ""


@pytest.mark.slow
def test_lifted_limits_accept_every_failure(tmp_path: Path) -> None:
    faults = {n: ("http", "half")[n % 2] for n in range(0, 480, 5)}
    pair = run_and_write(tmp_path, faults, **PROBE | {"slo__ttft_p99_s": None, "slo__tpot_p99_s": None},
                load__min_duration_s=1.2, load__min_queries=1)  # fmt: skip
    figures = assert_same(pair)
    assert (figures.ttft_limit_s, figures.tpot_limit_s) == (None, None)
    assert (figures.result, figures.errors) == ("VALID", 48)
