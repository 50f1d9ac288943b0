"""Test that every reader opens a recorded run on two GPUs, and that its figures follow from its requests."""

from __future__ import annotations

import csv
import gzip
import tarfile
from pathlib import Path
from statistics import median

import pytest
from support.recorded_studies import figures_of, trial_alone

from tune.analysis.measure import measure_attempt

DATA = Path(__file__).parents[1] / "data" / "gpu"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the run."""
    folder = tmp_path_factory.mktemp("gpu") / "runs"
    with tarfile.open(DATA / "h200_x2.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    for file in folder.glob("*.*"):
        file.rename(folder.parent / file.name)
    return folder


def test_every_record_opens(runs: Path) -> None:
    figures = figures_of(runs)
    assert sorted(figures) == ["capacity", "fixed"]
    assert {study["backend"] for study in figures.values()} == {"local"}


@pytest.mark.parametrize("study", ["fixed", "capacity"])
def test_the_figures_follow_from_the_requests(study: str, runs: Path) -> None:
    folder, spec, outcome = trial_alone(runs / study)
    measured = measure_attempt(folder.attempts()[-1], spec)
    for again, recorded in zip(measured, outcome.probes, strict=True):
        assert again.ttft_s == recorded.ttft_s
        assert again.tpot_s == recorded.tpot_s
        assert again.output_tps_per_gpu == recorded.output_tps_per_gpu
        assert again.loadgen_result == recorded.loadgen_result
        assert again.feasible == recorded.feasible


def test_the_search_brackets_the_highest_rate(runs: Path) -> None:
    _, spec, outcome = trial_alone(runs / "capacity")
    held = [probe.target_qps for probe in outcome.probes if probe.feasible]
    missed = [probe.target_qps for probe in outcome.probes if not probe.feasible]
    assert all(probe.valid for probe in outcome.probes)
    assert max(held) < min(missed) < max(held) * (1 + spec.load.resolution)
    assert outcome.target_qps == max(held)
    assert outcome.feasible


def test_the_pools_were_read_under_the_names_of_their_engine(runs: Path) -> None:
    _, _, outcome = trial_alone(runs / "capacity")
    assert outcome.breakdown is not None
    assert outcome.breakdown.prefill_utilisation == pytest.approx(0.86, abs=0.01)
    assert outcome.bottleneck is not None
    assert outcome.bottleneck.kind == "prefill"


@pytest.mark.parametrize("study", ["fixed", "capacity"])
def test_caches_crossed_nvlink_and_every_probe_began_on_an_empty_deployment(study: str, runs: Path) -> None:
    """The record is older than the client's own times and the samples of GPUs: these are not counted."""
    folder, spec, _ = trial_alone(runs / study)
    for probe in measure_attempt(folder.attempts()[-1], spec):
        checks = {check.name: check for check in probe.checks}
        assert checks["kv_transfers"].result == checks["leftovers"].result == "as_meant"
        assert checks["kv_transfers"].found.startswith(
            "UCX_TLS=cuda_ipc,cuda_copy,tcp,self,sm allows NVLink, TCP; 470 transfers of 50.3 MB at "
        )
        assert {checks[name].result for name in ("worker_speed", "client", "clocks")} == {"not_counted"}


def test_the_engines_log_has_no_whole_steps_with_asynchronous_scheduling(runs: Path) -> None:
    folder, _, outcome = trial_alone(runs / "fixed")
    log = folder.attempts()[-1] / "logs" / "localhost_decode_w0_steps.csv.gz"
    with gzip.open(log, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    logged_s = median(float(row["elapsed_s"]) for row in rows if int(row["generation_tokens"]) >= 20)
    assert outcome.tpot_s is not None
    assert logged_s / outcome.tpot_s.p50 == pytest.approx(0.66, abs=0.05)


def test_nothing_is_left_on_the_gpus(runs: Path) -> None:
    lines = (runs.parent / "gpus_after.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == ["NVIDIA H200, 0 MiB"] * 2
