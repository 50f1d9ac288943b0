"""What every place to run owes the study, run against each of them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune.clusters.place import Place
from tune.clusters.simulated import FURTHER_ORDERS, SimulatedRack
from tune.config import compose_overrides
from tune.results.folder import PROBE_FOLDER, read_attempt
from tune.results.measure import measure
from tune.results.orders import read_orders
from tune.results.outcome import Probe
from tune.spec.trial import TrialSpec

SETTINGS = compose_overrides(["load.min_duration_s=120.0", "load.concatenate_permutation=false"]).settings
SPEC = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration is not None


@pytest.fixture(params=[1, 2], ids=["sim in this process", "sim in two processes"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    assert SETTINGS.cluster.calibration is not None
    with SimulatedRack(SETTINGS.cluster.calibration, processes=request.param) as rack:
        yield rack


def wait(place: Place, handle: str) -> None:
    deadline_s = time.monotonic() + 60
    while place.poll(handle) != "ended":
        assert time.monotonic() < deadline_s, "the attempt never ended"
        time.sleep(0.01)


def test_an_attempt_leaves_its_record_and_its_probe(place: Place, tmp_path: Path) -> None:
    attempt = tmp_path / "raw" / "1"
    wait(place, place.submit(SPEC, attempt))
    record = read_attempt(attempt)
    assert record is not None
    assert record.error is None
    probe = measure(attempt / PROBE_FOLDER, SPEC, PROBE_FOLDER)
    assert probe.queries == SPEC.load.expected_queries
    assert record.held_s > 1200 + probe.queries / probe.target_qps


def test_a_probe_near_its_limit_is_repeated_with_other_orders_of_lengths(
    place: Place, tmp_path: Path
) -> None:
    far = measured_at(place, tmp_path / "far", SPEC)
    assert far.ttft_s is not None
    limit_s = far.ttft_s.p99
    near = measured_at(place, tmp_path / "near", _limited(limit_s))
    wide = measured_at(place, tmp_path / "wide", _limited(2 * limit_s))
    assert wide.spread is None
    assert near.spread is not None
    assert near.spread.ttft_p99_s is not None
    assert near.spread.orders == 1 + FURTHER_ORDERS
    assert near.ttft_s == far.ttft_s, "the trial's own order is the one that is judged"
    assert near.spread.ttft_p99_s.min <= limit_s <= near.spread.ttft_p99_s.max
    seeds = [order.length_seed for order in read_orders(tmp_path / "near" / PROBE_FOLDER)]
    assert len({SPEC.load.length_seed, *seeds}) == 1 + FURTHER_ORDERS


def test_a_further_order_is_what_a_trial_with_its_seed_measures(place: Place, tmp_path: Path) -> None:
    own = measured_at(place, tmp_path / "own", _limited(4.0))
    assert own.ttft_s is not None
    near = _limited(own.ttft_s.p99)
    measured_at(place, tmp_path / "near", near)
    order = read_orders(tmp_path / "near" / PROBE_FOLDER)[0]
    load = near.load.model_copy(update={"length_seed": order.length_seed})
    other = measured_at(place, tmp_path / "other", near.model_copy(update={"load": load}))
    assert other.ttft_s is not None
    assert other.tpot_s is not None
    assert (order.ttft_p99_s, order.tpot_p99_s) == (other.ttft_s.p99, other.tpot_s.p99)
    assert order.slo_held == other.feasible


def test_attempts_of_several_trials_keep_apart(place: Place, tmp_path: Path) -> None:
    specs = [
        SPEC.model_copy(update={"load": SPEC.load.model_copy(update={"target_qps": qps})})
        for qps in (12.0, 13.0, 14.0)
    ]
    handles = {place.submit(spec, tmp_path / str(number)): number for number, spec in enumerate(specs)}
    for handle, number in handles.items():
        wait(place, handle)
        probe = measure(tmp_path / str(number) / PROBE_FOLDER, specs[number], PROBE_FOLDER)
        assert probe.target_qps == specs[number].load.target_qps


def test_a_trial_that_cannot_run_is_recorded_with_its_error(place: Place, tmp_path: Path) -> None:
    dataset = SPEC.load.dataset.model_copy(update={"path": "/nowhere/lengths.csv"})
    spec = SPEC.model_copy(update={"load": SPEC.load.model_copy(update={"dataset": dataset})})
    wait(place, place.submit(spec, tmp_path))
    record = read_attempt(tmp_path)
    assert record is not None
    assert "/nowhere/lengths.csv" in (record.error or "")


def test_cancelling_what_ended_does_nothing(place: Place, tmp_path: Path) -> None:
    handle = place.submit(SPEC, tmp_path)
    wait(place, handle)
    place.cancel(handle)
    assert place.poll(handle) == "ended"
    assert read_attempt(tmp_path) is not None


def test_leaving_a_place_leaves_nothing_running(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    assert SETTINGS.cluster.calibration is not None
    with SimulatedRack(SETTINGS.cluster.calibration, processes=2) as rack:
        for number in range(6):
            rack.submit(_seeded(number), tmp_path / str(number))
    assert set(multiprocessing.active_children()) <= before
    begun = [path for path in tmp_path.iterdir() if (path / PROBE_FOLDER).exists()]
    assert all(read_attempt(path) for path in begun), "what had begun was ended, not torn"


def test_a_killed_worker_costs_its_attempt_and_no_more(tmp_path: Path) -> None:
    assert SETTINGS.cluster.calibration is not None
    with SimulatedRack(SETTINGS.cluster.calibration, processes=1 + 1) as rack:
        wait(rack, rack.submit(SPEC, tmp_path / "before"))
        for worker in multiprocessing.active_children():
            worker.kill()
        handle = rack.submit(_seeded(1), tmp_path / "during")
        wait(rack, handle)
        wait(rack, rack.submit(_seeded(2), tmp_path / "after"))
    assert read_attempt(tmp_path / "before") is not None
    assert read_attempt(tmp_path / "after") is not None


def measured_at(place: Place, attempt: Path, spec: TrialSpec) -> Probe:
    wait(place, place.submit(spec, attempt))
    return measure(attempt / PROBE_FOLDER, spec, PROBE_FOLDER)


def _limited(ttft_p99_s: float) -> TrialSpec:
    """The trial with this limit on TTFT and none on TPOT."""
    slo = SPEC.slo.model_copy(update={"ttft_p99_s": ttft_p99_s, "tpot_p99_s": None})
    return SPEC.model_copy(update={"slo": slo})


def _seeded(seed: int) -> TrialSpec:
    return SPEC.model_copy(update={"load": SPEC.load.model_copy(update={"length_seed": seed})})
