"""Test what every backend owes the study, with each of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, get_args

import pytest
from support.composed import composed
from support.fake_deployment import Trial
from support.slurm_trials import small, stubbed
from support.waiting import wait_for

from tune.analysis.measure import REQUESTS_FILE, measure, measure_attempt
from tune.analysis.shuffles import read_shuffles
from tune.backends.activity import Activity
from tune.backends.base import Backend
from tune.backends.local import LocalBackend
from tune.backends.registry import BACKENDS
from tune.backends.simulated import SimulatorBackend
from tune.backends.simulated_probes import EXTRA_SHUFFLES
from tune.backends.slurm.backend import SlurmBackend
from tune.deploy.plan import client_json, render, write_plan
from tune.records.folders import PROBE_FOLDER, TrialFolder, read_attempt
from tune.records.outcome import Probe
from tune.records.requests import read_requests
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

SETTINGS = composed("load.min_duration_s=120.0", "load.concatenate_permutation=false")
SPEC = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration is not None

Alter = Callable[[TrialSpec], TrialSpec]


class Ground(Protocol):
    """Provide a backend, and trials that it can run in a short time."""

    kind: str
    backend: Backend

    def trial(self, name: str, alter: Alter = lambda spec: spec) -> tuple[TrialSpec, Path]:
        """Return the altered trial and the folder of an attempt of it, prepared as a study prepares it."""


@dataclass(frozen=True)
class SimulatedGround:
    backend: Backend
    root: Path
    kind: str = "sim"

    def trial(self, name: str, alter: Alter = lambda spec: spec) -> tuple[TrialSpec, Path]:
        (attempt := self.root / name / "raw" / "1").mkdir(parents=True)
        return alter(SPEC), attempt


@dataclass(frozen=True)
class LocalGround:
    backend: Backend
    root: Path
    monkeypatch: pytest.MonkeyPatch
    kind: str = "local"

    def trial(self, name: str, alter: Alter = lambda spec: spec) -> tuple[TrialSpec, Path]:
        made = Trial(self.root / name, real_client=True, alter=alter)
        for variable, value in made.environment().items():
            self.monkeypatch.setenv(variable, value)
        return made.spec, made.attempt


@dataclass(frozen=True)
class SlurmGround:
    """Run on real Slurm, with stubs instead of Dynamo."""

    backend: Backend
    root: Path
    words: tuple[str, ...]
    kind: str = "slurm"

    def trial(self, name: str, alter: Alter = lambda spec: spec) -> tuple[TrialSpec, Path]:
        settings = composed(*self.words, *stubbed(self.root / f"stub-{name}"))
        spec = alter(settings.trial_spec)
        folder = TrialFolder(self.root / "one" / name)
        folder.new_attempt().mkdir(parents=True)
        folder.write_spec(spec)
        write_plan(render(settings.trial_spec, settings.cluster), folder.plan)
        (folder.plan / "client.json").write_text(client_json(spec))  # alterations concern the client alone
        return spec, folder.attempts()[0]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("local", "slurm")]
GROUNDS = ["sim in this process", "sim in two processes", *SLOW]


@pytest.fixture(params=GROUNDS)
def ground(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    if request.param == "local":
        with LocalBackend(lambda _: None, lock=str(tmp_path)) as machine:
            yield LocalGround(machine, tmp_path, monkeypatch)
    elif request.param == "slurm":
        words = (*request.getfixturevalue("slurm").words, *small(queries=20, seconds=2))
        facts = composed(*words).cluster
        with SlurmBackend(facts, 1, lambda _: None, every_s=0.2, grace_s=2.0) as cluster:
            yield SlurmGround(cluster, tmp_path, words)
    else:
        with simulated(0 if request.param == "sim in this process" else 2) as rack:
            yield SimulatedGround(rack, tmp_path)


@pytest.fixture(params=[0, 2], ids=["sim in this process", "sim in two processes"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with simulated(request.param) as rack:
        yield rack


def simulated(workers: int) -> SimulatorBackend:
    assert SETTINGS.cluster.calibration is not None
    return SimulatorBackend(SETTINGS.cluster.calibration, workers)


def wait(backend: Backend, handle: str) -> None:
    wait_for(lambda: backend.poll(handle) == "ended", within_s=180)


def test_table_lists_every_kind_of_cluster() -> None:
    assert set(BACKENDS) == set(get_args(ClusterFacts.model_fields["kind"].annotation))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS)
def test_declared_capabilities_agree_with_the_table_row(kind: str) -> None:
    row, settings = BACKENDS[kind], composed(f"cluster={kind}")
    assert settings.parallel == row.capabilities.default_parallel
    assert (row.jobs is not None) == row.capabilities.detached
    assert row.capabilities.real_time or not row.capabilities.detached
    assert settings.cluster.calibration or not row.capabilities.needs_calibration
    with row.build(settings, 1, lambda _: None) as backend:
        assert backend.capabilities == row.capabilities


def test_backend_declares_the_capabilities_of_its_kind(ground: Ground) -> None:
    assert ground.backend.capabilities == BACKENDS[ground.kind].capabilities
    assert ground.backend.poll_interval_s > 0


@pytest.mark.slow
def test_only_a_detached_backend_resumes_its_attempt(ground: Ground) -> None:
    spec, attempt = ground.trial("one")
    handle = ground.backend.submit(spec, attempt)
    resumed = ground.backend.resume(attempt)
    assert resumed == (handle if ground.backend.capabilities.detached else None)
    wait(ground.backend, handle)


@pytest.mark.slow
def test_probes_of_a_backend_are_those_that_the_attempt_left(ground: Ground) -> None:
    spec, attempt = ground.trial("one")
    handle = ground.backend.submit(spec, attempt)
    wait(ground.backend, handle)
    probes = ground.backend.probes(handle)
    assert probes is None or list(probes) == measure_attempt(attempt, spec)
    assert (probes is None) == ground.backend.capabilities.real_time


@pytest.mark.slow
def test_attempt_leaves_its_record_and_its_probe(ground: Ground) -> None:
    spec, attempt = ground.trial("one")
    wait(ground.backend, ground.backend.submit(spec, attempt))
    record = read_attempt(attempt)
    assert record is not None
    assert record.error is None
    probe = measure(attempt / PROBE_FOLDER, spec, PROBE_FOLDER)
    assert probe.queries == spec.load.expected_queries
    last_ns = read_requests(attempt / PROBE_FOLDER / REQUESTS_FILE).scheduled_ns[-1]
    assert record.occupied_s > last_ns / 1e9
    lasted = datetime.fromisoformat(record.ended_at) - datetime.fromisoformat(record.started_at)
    assert lasted.total_seconds() == pytest.approx(record.occupied_s, abs=0.5)


@pytest.mark.slow
def test_simulated_attempt_counts_its_bring_up(backend: Backend, tmp_path: Path) -> None:
    wait(backend, backend.submit(SPEC, tmp_path))
    record = read_attempt(tmp_path)
    assert record is not None
    assert record.occupied_s > 1200 + SPEC.load.expected_queries / SPEC.load.target_qps


@pytest.mark.slow
def test_probe_near_its_limit_is_repeated_with_other_shuffles(backend: Backend, tmp_path: Path) -> None:
    far = measured_at(backend, tmp_path / "far", SPEC)
    assert far.ttft_s is not None
    limit_s = far.ttft_s.p99
    near = measured_at(backend, tmp_path / "near", _limited(limit_s))
    wide = measured_at(backend, tmp_path / "wide", _limited(2 * limit_s))
    assert wide.spread is None
    assert near.spread is not None
    assert near.spread.ttft_p99_s is not None
    assert near.spread.shuffles == 1 + EXTRA_SHUFFLES
    assert near.ttft_s == far.ttft_s, "the trial's own order is the one that is judged"
    assert near.spread.ttft_p99_s.min <= limit_s <= near.spread.ttft_p99_s.max
    seeds = [order.shuffle_seed for order in read_shuffles(tmp_path / "near" / PROBE_FOLDER)]
    assert len({SPEC.load.shuffle_seed, *seeds}) == 1 + EXTRA_SHUFFLES


@pytest.mark.slow
def test_extra_shuffle_equals_a_trial_with_its_seed(backend: Backend, tmp_path: Path) -> None:
    own = measured_at(backend, tmp_path / "own", _limited(4.0))
    assert own.ttft_s is not None
    near = _limited(own.ttft_s.p99)
    measured_at(backend, tmp_path / "near", near)
    order = read_shuffles(tmp_path / "near" / PROBE_FOLDER)[0]
    load = near.load.model_copy(update={"shuffle_seed": order.shuffle_seed})
    other = measured_at(backend, tmp_path / "other", near.model_copy(update={"load": load}))
    assert other.ttft_s is not None
    assert other.tpot_s is not None
    assert (order.ttft_p99_s, order.tpot_p99_s) == (other.ttft_s.p99, other.tpot_s.p99)
    assert order.slo_met == other.feasible


@pytest.mark.slow
def test_attempts_of_several_trials_do_not_mix(ground: Ground) -> None:
    begun: dict[str, tuple[TrialSpec, Path]] = {}
    for factor in (0.8, 0.9, 1.0):
        spec, attempt = ground.trial(str(factor), partial(_faster, factor=factor))
        begun[ground.backend.submit(spec, attempt)] = spec, attempt
    rates = set()
    for handle, (spec, attempt) in begun.items():
        wait(ground.backend, handle)
        rates.add(measure(attempt / PROBE_FOLDER, spec, PROBE_FOLDER).target_qps)
    assert rates == {spec.load.target_qps for spec, _ in begun.values()}
    assert len(rates) == 3


@pytest.mark.slow
def test_trial_that_cannot_run_is_recorded_with_its_error(ground: Ground) -> None:
    spec, attempt = ground.trial("one", _without_its_dataset)
    wait(ground.backend, ground.backend.submit(spec, attempt))
    record = read_attempt(attempt)
    assert record is not None
    assert "/nowhere/lengths.csv" in (record.error or "")
    assert record.cause == "harness"


@pytest.mark.slow
def test_cancelling_an_ended_attempt_does_nothing(ground: Ground) -> None:
    spec, attempt = ground.trial("one")
    handle = ground.backend.submit(spec, attempt)
    wait(ground.backend, handle)
    before = read_attempt(attempt)
    ground.backend.cancel(handle)
    assert ground.backend.poll(handle) == "ended"
    assert read_attempt(attempt) == before is not None


@pytest.mark.slow
def test_leaving_the_simulator_leaves_no_process(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    assert SETTINGS.cluster.calibration is not None
    with SimulatorBackend(SETTINGS.cluster.calibration, workers=2) as rack:
        for number in range(6):
            rack.submit(_seeded(number), tmp_path / str(number))
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.slow
def test_cancelled_simulation_is_lost_and_the_others_go_on(tmp_path: Path) -> None:
    with simulated(2) as rack:
        first, second, third = (rack.submit(_seeded(number), tmp_path / str(number)) for number in range(3))
        rack.cancel(first)
        rack.cancel(third)
        assert rack.poll(first) == rack.poll(third) == "ended"
        assert rack.probes(first) is rack.probes(third) is None
        wait(rack, second)
        assert rack.probes(second)
    assert not (tmp_path / "2").exists()


@pytest.mark.slow
def test_attempt_reports_its_steps_in_order_and_once(backend: Backend, tmp_path: Path) -> None:
    load = {"mode": "capacity", "min_queries": 2000, "target_qps": 30.0}
    spec = SPEC.model_copy(update={"load": SPEC.load.model_copy(update=load)})
    handle = backend.submit(spec, tmp_path)
    steps: list[Activity] = []

    def ended() -> bool:
        state = backend.poll(handle)
        steps.extend(backend.activities(handle))
        return state == "ended"

    wait_for(ended)
    assert not backend.activities(handle)
    probes = measure_attempt(tmp_path, spec)
    stages = [step for step in steps if step.stage != "shuffle"]
    assert [step.stage for step in stages] == ["forecast", *["probe", "probe", "forecast"] * len(probes)]
    ended = [step for step in stages if step.verdict]
    assert [(step.number, step.target_qps, step.full) for step in ended] == [
        (number, probe.target_qps, probe.full) for number, probe in enumerate(probes, 1)
    ]
    assert [step.verdict == "held" for step in ended] == [probe.feasible for probe in probes]


@pytest.mark.slow
def test_killed_worker_loses_its_attempt_only(tmp_path: Path) -> None:
    assert SETTINGS.cluster.calibration is not None
    with SimulatorBackend(SETTINGS.cluster.calibration, workers=2) as rack:
        wait(rack, rack.submit(SPEC, tmp_path / "before"))
        for worker in multiprocessing.active_children():
            worker.kill()
        handle = rack.submit(_seeded(1), tmp_path / "during")
        wait(rack, handle)
        lost = rack.probes(handle) is None
        wait(rack, rack.submit(_seeded(2), tmp_path / "after"))
        wait(rack, rack.submit(_seeded(1), tmp_path / "during"))
    assert lost
    assert read_attempt(tmp_path / "during") is not None, "it was submitted again to its own folder"
    assert read_attempt(tmp_path / "before") is not None
    assert read_attempt(tmp_path / "after") is not None


def measured_at(backend: Backend, attempt: Path, spec: TrialSpec) -> Probe:
    wait(backend, backend.submit(spec, attempt))
    return measure(attempt / PROBE_FOLDER, spec, PROBE_FOLDER)


def _faster(spec: TrialSpec, factor: float) -> TrialSpec:
    load = spec.load.model_copy(update={"target_qps": factor * spec.load.target_qps})
    return spec.model_copy(update={"load": load})


def _without_its_dataset(spec: TrialSpec) -> TrialSpec:
    dataset = spec.load.dataset.model_copy(update={"path": "/nowhere/lengths.csv"})
    return spec.model_copy(update={"load": spec.load.model_copy(update={"dataset": dataset})})


def _limited(ttft_p99_s: float) -> TrialSpec:
    """Return the trial with this limit on TTFT and none on TPOT."""
    slo = SPEC.slo.model_copy(update={"ttft_p99_s": ttft_p99_s, "tpot_p99_s": None})
    return SPEC.model_copy(update={"slo": slo})


def _seeded(seed: int) -> TrialSpec:
    return SPEC.model_copy(update={"load": SPEC.load.model_copy(update={"shuffle_seed": seed})})
