"""Several runs on one live deployment, with real processes, the real LoadGen and the real search."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.fake_deployment import SERVERS, Trial, finish, wait_for

from tune.analysis.judge import judge
from tune.analysis.measure import measure_attempt
from tune.config import compose_overrides
from tune.manifest.process_manifest import CALIBRATION_FILE
from tune.orchestrator.attempt import INTERRUPTED
from tune.records.capacity_search import (
    EarlyStopThreshold,
    read_capacity,
    read_probe_request,
    write_early_stop,
)
from tune.records.outcome import Outcome
from tune.records.scrapes import METRICS_FILE
from tune.spec.trial import TrialSpec

QPS = 60.0
"""The only rate of the bracket: what the simulated rack expects of stand-ins means nothing."""

Searching = Callable[..., Trial]


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[Searching]:
    """A trial of stand-ins that are asked for their highest rate; what a failed test leaves is killed."""
    with ExitStack() as stack:

        def make(
            queries: int = 500,
            slo: dict[str, float] | None = None,
            response_timeout_s: float = 20.0,
            **changes: Any,
        ) -> Trial:
            asked = {
                "mode": "capacity",
                "rate_range_qps": (QPS, QPS),
                "target_qps": QPS,
                "min_queries": queries,
                "min_duration_s": 1.0,
                "response_timeout_s": response_timeout_s,
            }

            def alter(spec: TrialSpec) -> TrialSpec:
                load, limits = spec.load.model_copy(update=asked), spec.slo.model_copy(update=slo or {})
                return spec.model_copy(update={"load": load, "slo": limits})

            trial = Trial(tmp_path, alter=alter, **{"real_client": True} | changes)
            stack.callback(trial.kill_all)
            calibration = compose_overrides([]).settings.cluster.calibration
            assert calibration is not None
            (trial.folder.plan / CALIBRATION_FILE).write_text(calibration.model_dump_json())
            return trial

        yield make


def outcome_of(trial: Trial) -> Outcome:
    probes = measure_attempt(trial.attempt, trial.spec)
    return judge(trial.spec, probes, number=0, source="command", attempts=[], provenance={})


def clients(trial: Trial) -> list[int]:
    return [pid for pid, command in trial.alive().items() if "tune.client" in command]


@pytest.mark.slow
def test_a_rate_that_a_run_of_full_length_confirmed_is_the_answer(searching: Searching) -> None:
    trial = searching()
    code, said = trial.run()
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
    asked = [json.loads((trial.attempt / f"probe-{n}" / "client.json").read_text()) for n in (1, 2)]
    assert [one["earlier_runs"] for one in asked] == [0, 1]
    assert not trial.alive()


@pytest.mark.slow
def test_what_an_attempt_takes_is_told_phase_by_phase(searching: Searching) -> None:
    trial = searching()
    assert trial.run()[0] == 0
    record = trial.record
    assert record.phases is not None
    spent = record.phases.model_dump()
    assert all(seconds > 0 for seconds in spent.values()), spent
    assert record.held_s - 2.0 < sum(spent.values()) <= record.held_s
    arrivals_s = sum(probe.queries for probe in outcome_of(trial).probes) / QPS
    assert record.phases.probes_s > 0.8 * arrivals_s


@pytest.mark.slow
def test_a_run_that_can_hold_no_more_is_stopped_repeated_once_and_the_deployment_asked_no_more(
    searching: Searching,
) -> None:
    """Answers become late in the middle of the run of full length, as if it stalled, and stay late."""
    trial = searching(queries=4000, slo={"ttft_p99_s": 2.0}, behaviour={"late_after": 1000})
    code, said = trial.run()
    assert code == 0, said
    for number in (2, 3):
        asked = read_probe_request(trial.attempt / f"probe-{number}")
        assert asked is not None
        assert (asked.target_qps, asked.queries, asked.stopped) == (QPS, None, True)
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
def test_a_deployment_that_cannot_beat_the_best_is_given_up_after_one_short_probe(
    searching: Searching,
) -> None:
    trial = searching(slo={"ttft_p99_s": 1e-4})
    write_early_stop(trial.attempt, EarlyStopThreshold(early_stop_qps=QPS))
    code, said = trial.run()
    assert code == 0, said
    assert "clearly below the rate to beat: given up" in said
    capacity = read_capacity(trial.attempt)
    assert capacity is not None
    assert capacity.censored
    assert not (trial.attempt / "probe-2").exists()
    assert not trial.alive()


@pytest.mark.slow
def test_a_client_killed_in_a_later_probe_fails_the_attempt_and_the_earlier_stay(
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
def test_the_next_run_waits_until_no_worker_holds_a_request(searching: Searching) -> None:
    trial = searching(behaviour={"holds_s": 3.0})
    code, said = trial.run()
    assert code == 0, said
    assert "requests are still held by workers; the next run waits" in said
    assert trial.record.phases is not None
    assert trial.record.phases.drain_s > 2.0


@pytest.mark.slow
def test_requests_that_workers_never_let_go_fail_the_attempt(searching: Searching) -> None:
    trial = searching(behaviour={"holds_s": 1e6}, response_timeout_s=3.0)
    code, said = trial.run()
    assert code == 3, said
    assert "requests of a run are still held by workers" in (trial.record.error or "")
    assert read_probe_request(trial.attempt / "probe-2") is None
    assert not trial.alive()


@pytest.mark.slow
def test_an_interrupt_in_a_probe_stops_everything(searching: Searching) -> None:
    trial = searching(real_client=False)
    with trial.start() as orchestrator:
        trial.pid("client")
        orchestrator.send_signal(signal.SIGINT)
        assert finish(orchestrator) == INTERRUPTED
    assert "interrupted after" in (trial.record.error or "")
    assert (trial.attempt / "probe-1" / "client.json").exists()
    assert not trial.alive()


@pytest.mark.slow
def test_a_plan_without_its_calibration_is_named(searching: Searching) -> None:
    trial = searching()
    (trial.folder.plan / CALIBRATION_FILE).unlink()
    assert trial.run()[0] == 3
    assert f"found no plan/{CALIBRATION_FILE}" in (trial.record.error or "")
    assert not trial.alive()
