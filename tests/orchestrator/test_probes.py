"""Run the client repeatedly on one live deployment, with real processes, LoadGen and search."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.composed import composed
from support.fake_deployment import SERVERS, STOP_S, Trial, finish
from support.waiting import wait_for

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.manifest.process_manifest import CALIBRATION_FILE
from tune.orchestrator.attempt import EXIT_INTERRUPTED
from tune.records.capacity_search import (
    EarlyStopThreshold,
    read_capacity,
    read_probe_request,
    write_early_stop,
)
from tune.records.outcome import Outcome
from tune.records.requests import read_requests
from tune.records.scrapes import METRICS_FILE
from tune.spec.trial import TrialSpec

QPS = 60.0
"""The only rate of the range: what the simulator predicts for fake workers means nothing."""

Searching = Callable[..., Trial]


@contextmanager
def made_trials(folder: Path) -> Iterator[Searching]:
    """Yield a maker of trials that search the capacity of fake workers; kill what a failed test leaves."""
    with ExitStack() as stack:

        def make(
            queries: int = 500,
            slo: dict[str, float] | None = None,
            response_timeout_s: float = 20.0,
            **changes: Any,
        ) -> Trial:
            search = {
                "mode": "capacity",
                "rate_range_qps": (QPS, QPS),
                "target_qps": QPS,
                "min_queries": queries,
                "min_duration_s": 1.0,
                "response_timeout_s": response_timeout_s,
            }

            def alter(spec: TrialSpec) -> TrialSpec:
                load, limits = spec.load.model_copy(update=search), spec.slo.model_copy(update=slo or {})
                return spec.model_copy(update={"load": load, "slo": limits})

            trial = Trial(folder, alter=alter, **{"real_client": True} | changes)
            stack.callback(trial.kill_all)
            calibration = composed().cluster.calibration
            assert calibration is not None
            (trial.folder.plan / CALIBRATION_FILE).write_text(calibration.model_dump_json())
            return trial

        yield make


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[Searching]:
    with made_trials(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trial, int, str]]:
    """Search one capacity for all tests of what a search leaves; yield exit code and stderr with it."""
    with made_trials(tmp_path_factory.mktemp("searched")) as make:
        trial = make()
        yield (trial, *trial.run())


def outcome_of(trial: Trial) -> Outcome:
    probes = measure_attempt(trial.attempt, trial.spec)
    return judge(trial.spec, probes, TrialFacts(0, "command"))


def clients(trial: Trial) -> list[int]:
    return [pid for pid, command in trial.alive().items() if "tune.client" in command]


@pytest.mark.slow
def test_rate_that_held_in_a_full_run_is_the_result(searched: tuple[Trial, int, str]) -> None:
    trial, code, said = searched
    assert code == 0, said
    short, full = (read_probe_request(trial.attempt / f"probe-{number}") for number in (1, 2))
    assert short is not None
    assert full is not None
    assert (short.target_qps, short.queries, short.stopped) == (QPS, 459, False)
    assert (full.target_qps, full.queries, full.stopped) == (QPS, None, False)
    capacity, outcome = read_capacity(trial.attempt), outcome_of(trial)
    assert capacity is not None
    assert capacity.verified_qps == outcome.capacity_qps.low == QPS
    assert [probe.queries for probe in outcome.probes] == [459, 500]
    assert outcome.feasible
    for number in (1, 2):
        assert (trial.attempt / f"probe-{number}" / METRICS_FILE).stat().st_size
    logs = {path.stem for path in (trial.attempt / "logs").iterdir()}
    assert logs == {*SERVERS, "client_probe-1", "client_probe-2"}
    settings = [json.loads((trial.attempt / f"probe-{n}" / "client.json").read_text()) for n in (1, 2)]
    assert [run["earlier_runs"] for run in settings] == [0, 1]
    assert not trial.alive()


@pytest.mark.slow
def test_record_states_the_time_of_each_phase(searched: tuple[Trial, int, str]) -> None:
    trial, code, _ = searched
    assert code == 0
    record = trial.record
    assert record.phases is not None
    spent = record.phases.model_dump()
    assert all(seconds > 0 for seconds in spent.values()), spent
    assert sum(spent.values()) <= record.occupied_s
    logs = [read_requests(path) for path in trial.attempt.glob("probe-*/requests.npz")]
    assert record.phases.probes_s >= sum(float(log.scheduled_ns[-1]) / 1e9 for log in logs) > 0


@pytest.mark.slow
def test_futile_run_is_stopped_and_repeated_once(
    searching: Searching,
) -> None:
    """Answers become late in the middle of the full run, as in a stall, and stay late."""
    trial = searching(queries=4000, slo={"ttft_p99_s": 5.0}, behaviour={"late_after": 1000, "late_s": 6.0})
    code, said = trial.run()
    assert code == 0, said
    for number in (2, 3):
        request = read_probe_request(trial.attempt / f"probe-{number}")
        assert request is not None
        assert (request.target_qps, request.queries, request.stopped) == (QPS, None, True)
    capacity, outcome = read_capacity(trial.attempt), outcome_of(trial)
    assert capacity is not None
    assert (capacity.verified_qps, capacity.missed_qps) == (None, QPS)
    assert (outcome.capacity_qps.low, outcome.capacity_qps.high) == (None, QPS)
    short, stalled, again = outcome.probes
    assert short.feasible
    for full in (stalled, again):
        assert not full.feasible
        assert 459 <= full.queries < 4000
    assert not trial.alive()


@pytest.mark.slow
def test_deployment_that_cannot_beat_the_best_stops_early(
    searching: Searching,
) -> None:
    trial = searching(slo={"ttft_p99_s": 1e-4})
    write_early_stop(trial.attempt, EarlyStopThreshold(early_stop_qps=QPS))
    code, said = trial.run()
    assert code == 0, said
    assert "clearly below the rate to beat: stopped early" in said
    capacity = read_capacity(trial.attempt)
    assert capacity is not None
    assert capacity.stopped_early
    assert not (trial.attempt / "probe-2").exists()
    assert not trial.alive()


@pytest.mark.slow
def test_client_killed_in_a_later_probe_leaves_earlier_probes(
    searching: Searching,
) -> None:
    trial = searching(queries=4000)
    with trial.start() as orchestrator:
        wait_for((trial.attempt / "logs" / "client_probe-2.out").exists)
        wait_for(lambda: clients(trial))
        (client,) = clients(trial)
        os.kill(client, signal.SIGKILL)
        assert finish(orchestrator) == 3
    assert "the load client ended by SIGKILL" in (trial.record.error or "")
    assert read_probe_request(trial.attempt / "probe-1") is not None
    assert read_capacity(trial.attempt) is None
    assert not trial.alive()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["holding", "queueing"])
def test_next_run_waits_until_no_worker_and_no_frontend_holds_a_request(
    searching: Searching, where: str
) -> None:
    trial = searching()
    (trial.state / where).touch()
    with trial.start() as orchestrator:
        assert orchestrator.stderr is not None
        waits = [line for line in orchestrator.stderr if release(trial, line, where)]
        assert finish(orchestrator) == 0
    assert waits
    assert trial.record.phases is not None
    assert trial.record.phases.drain_s > STOP_S


def release(trial: Trial, line: str, where: str) -> bool:
    """Let what holds requests drop them once the next run waits for it; return whether it does."""
    waits = "requests are still held by workers or frontends; the next run waits" in line
    if waits:
        (trial.state / where).unlink(missing_ok=True)
    return waits


@pytest.mark.slow
def test_requests_held_for_ever_fail_the_attempt(searching: Searching) -> None:
    trial = searching(response_timeout_s=10.0)
    (trial.state / "holding").touch()
    code, said = trial.run()
    assert code == 3, said
    assert "requests of a run are still held by workers or frontends" in (trial.record.error or "")
    assert read_probe_request(trial.attempt / "probe-2") is None
    assert not trial.alive()


@pytest.mark.slow
def test_interrupt_in_a_probe_stops_everything(searching: Searching) -> None:
    trial = searching(real_client=False)
    with trial.start() as orchestrator:
        trial.pid("client")
        orchestrator.send_signal(signal.SIGINT)
        assert finish(orchestrator) == EXIT_INTERRUPTED
    assert "interrupted after" in (trial.record.error or "")
    assert (trial.attempt / "probe-1" / "client.json").exists()
    assert not trial.alive()


@pytest.mark.slow
def test_what_nothing_can_forecast_is_found_by_bisection(searching: Searching) -> None:
    trial = searching()
    (trial.folder.plan / CALIBRATION_FILE).unlink()
    code, said = trial.run()
    assert code == 0, said
    assert "the rate is found by bisection" in said
    record = read_capacity(trial.attempt)
    assert record is not None
    assert (record.verified_qps, record.fitted, record.prefill_capacity_qps) == (QPS, {}, None)
    assert not trial.alive()
