"""Test a trace on the simulated rack: its arrivals, its lengths, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.composed import composed

import tune
from tune.sim.simulator import simulate_serving
from tune.spec.settings import Settings
from tune.workload.length_files import read_rows


@pytest.fixture(scope="module")
def settings() -> Settings:
    path = Path(__file__).parents[1] / "data" / "dataset" / "trace.csv"
    words = ["load=trace", f"load.dataset.path={path}", "load.min_duration_s=1"]
    return composed(*words)


def test_the_simulated_rack_replays_a_trace(settings: Settings) -> None:
    load = settings.load
    rows = read_rows(Path(str(load.dataset.path)), load.trace)
    assert settings.cluster.calibration is not None
    log = simulate_serving(settings.trial_spec, settings.cluster.calibration)
    assert rows.time_s is not None
    assert log.scheduled_ns == pytest.approx(rows.time_s * 1e9, abs=1)
    assert np.array_equal(log.input_tokens, rows.inputs)
    assert np.array_equal(log.output_tokens, rows.outputs)


def test_the_outcome_of_a_trace_states_it_and_no_shuffles(settings: Settings) -> None:
    outcome = tune.simulate(settings.trial_spec)
    assert (outcome.status, outcome.valid, outcome.feasible) == ("measured", True, True)
    assert outcome.spread is None
    assert outcome.bottleneck is not None
    assert "shuffle" not in outcome.bottleneck.evidence
    assert outcome.provenance["workload"].startswith("trace: arrivals of the trace; prompts: mean 1,867")


def test_a_dense_part_of_a_trace_is_no_wrong_rate(settings: Settings, tmp_path: Path) -> None:
    """The first 600 requests come at 40 a second, the others at one: five sigmas from the mean by far."""
    path = tmp_path / "bursts.csv"
    times = [25 * i for i in range(600)] + [15_000 + 1000 * i for i in range(1, 400)]
    path.write_text("timestamp,input,output\n" + "".join(f"{t},500,20\n" for t in times))
    words = ["load=trace", f"load.dataset.path={path}", "load.min_duration_s=0.001", "load.min_queries=500"]
    part = composed(*words, "load.concatenate_permutation=false").trial_spec
    outcome = tune.simulate(part)
    assert (outcome.probes[0].queries, outcome.valid) == (500, True), outcome.reason
