"""Test several rates on one deployment of the simulated rack: the files that they leave, and their cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.composed import composed

from tune.analysis.measure import REQUESTS_FILE, measure
from tune.backends.simulated import SimulatorBackend
from tune.backends.simulated_probes import SimulatedDeployment
from tune.capacity.runner import measure_probe
from tune.capacity.search import ProbePlan
from tune.records.capacity_search import read_capacity, read_probe_request
from tune.records.folders import read_attempt
from tune.records.outcome import Probe
from tune.records.requests import read_requests
from tune.sim.simulator import simulate_serving
from tune.spec.trial import TrialSpec

SHORT = (
    "load.mode=capacity",
    "load.dataset.samples=2000",
    "load.min_duration_s=60.0",
    "load.min_queries=2000",
)


def probed(attempt: Path, *overrides: str) -> tuple[TrialSpec, list[Probe]]:
    settings = composed(*SHORT, *overrides)
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    assert calibration is not None
    with SimulatorBackend(calibration, 0) as rack:
        rack.submit(spec, attempt)
    record = read_attempt(attempt)
    assert record is not None
    assert record.error is None, record.error
    folders = sorted(attempt.glob("probe-*"))
    lasted_s = sum(read_requests(folder / REQUESTS_FILE).done_ns.max() for folder in folders) / 1e9
    assert record.occupied_s >= calibration.bring_up_s + lasted_s - 1e-6
    assert record.phases is not None
    assert sum(record.phases.model_dump().values()) == pytest.approx(record.occupied_s)
    assert record.phases.bring_up_s == calibration.bring_up_s
    return spec, [measure(folder, spec, folder.name) for folder in folders]


@pytest.mark.slow
def test_capacity_search_ends_with_a_full_run_that_holds(tmp_path: Path) -> None:
    spec, (short, full) = probed(tmp_path)
    assert (short.full, short.queries, short.loadgen_tps) == (False, 459, None)
    assert (full.full, full.queries, full.feasible) == (True, 2000, True)
    capacity = read_capacity(tmp_path)
    assert capacity is not None
    assert (capacity.verified_qps, capacity.missed_qps) == (full.target_qps, None)
    assert full.target_qps == pytest.approx(capacity.capacity_qps, rel=0.05)
    assert capacity.prefill_capacity_qps
    assert capacity.decode_capacity_qps
    assert min(capacity.prefill_capacity_qps, capacity.decode_capacity_qps) == pytest.approx(
        capacity.capacity_qps, rel=0.08
    )
    detail = (tmp_path / "probe-2" / "mlperf_log_detail.txt").read_text()
    (requested_qps,) = [
        json.loads(line.split(" ", 1)[1])["value"]
        for line in detail.splitlines()
        if '"requested_server_target_qps"' in line
    ]
    assert requested_qps == full.target_qps
    assert spec.load.mode == "capacity"


@pytest.mark.slow
def test_search_without_a_feasible_rate_ends_after_a_short_probe(tmp_path: Path) -> None:
    _, (short,) = probed(tmp_path, "slo.ttft_p99_s=0.1")
    assert (short.full, short.feasible) == (False, False)
    assert short.constraints.ttft_p99 is not None
    assert short.constraints.ttft_p99 > 0
    capacity = read_capacity(tmp_path)
    assert capacity is not None
    assert (capacity.verified_qps, capacity.capacity_qps) == (None, 0.0)


def test_futile_run_is_stopped_and_judged_by_its_records(tmp_path: Path) -> None:
    settings = composed(*SHORT)
    assert settings.cluster.calibration is not None
    deployment = SimulatedDeployment(settings.cluster.calibration, lambda step: None)
    log, held = measure_probe(
        ProbePlan(25.0, None), settings.trial_spec, tmp_path / "probe-1", deployment.run
    )
    assert held is False
    assert 459 <= len(log) < 2000
    request = read_probe_request(tmp_path / "probe-1")
    assert request is not None
    assert request.stopped
    probe = measure(tmp_path / "probe-1", settings.trial_spec, "probe-1")
    assert (probe.valid, probe.feasible, probe.target_qps, probe.full) == (True, False, 25.0, True)
    load = settings.load.at(25.0)
    whole = simulate_serving(
        settings.trial_spec.model_copy(update={"load": load}), settings.cluster.calibration
    )
    phases = deployment.phases
    assert phases.drain_s > 0
    assert phases.probes_s + phases.drain_s <= whole.done_ns.max() / 1e9
    assert phases.probes_s == pytest.approx(log.done_ns.max() / 1e9)


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    settings = composed(*SHORT)
    assert settings.cluster.calibration is not None
    for threads in (1, 3):
        with SimulatorBackend(settings.cluster.calibration, 0, threads) as rack:
            rack.submit(settings.trial_spec, tmp_path / str(threads))
    names = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.json")]
    compared = [name for name in names if name.name in ("capacity.json", "shuffles.json", "probe.json")]
    assert any(name.name == "capacity.json" for name in compared)
    for name in compared:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name
