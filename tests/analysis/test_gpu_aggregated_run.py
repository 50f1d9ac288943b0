"""Test the records, steps and predictions of a recorded run of an aggregated worker on one GPU."""

from __future__ import annotations

import csv
import gzip
import re
import tarfile
from datetime import datetime
from pathlib import Path

import pytest
from support.recorded_studies import figures_of, trial_alone

from tune.analysis.measure import measure_attempt
from tune.calibrate.measured_steps import measure_steps
from tune.engines.registry import adapter_named
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import TrialFolder, read_attempt

DATA = Path(__file__).parents[1] / "data" / "gpu" / "h200_aggregated.tar.xz"
PREDICTED = ("capacity", "low", "rate", "budget", "seqs", "prompts", "answers")
MEASURED = ("calibration", *PREDICTED)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the run: studies in `runs`, all else beside it."""
    folder = tmp_path_factory.mktemp("gpu") / "runs"
    with tarfile.open(DATA) as tar:
        tar.extractall(folder, filter="data")
    for path in list(folder.iterdir()):
        if not (path / "study.json").exists():
            path.rename(folder.parent / path.name)
    return folder


def attempt_of(folder: TrialFolder) -> AttemptRecord:
    attempt = read_attempt(folder.attempts()[-1])
    assert attempt is not None
    return attempt


def steps_of(folder: TrialFolder) -> list[tuple[int, int, int, int, float]]:
    """Return prompts, their tokens, answers, their tokens and seconds of each step of the worker's log."""
    with gzip.open(folder.attempts()[-1] / "logs" / "localhost_aggregated_w0_steps.csv.gz", "rt") as file:
        return [
            (int(row[0]), int(row[1]), int(row[2]), int(row[3]), float(row[4]))
            for row in list(csv.reader(file))[1:]
        ]


def test_every_record_opens(runs: Path) -> None:
    figures = figures_of(runs)
    assert {f"predict_{name}" for name in PREDICTED} <= set(figures)
    assert {figures[study]["backend"] for study in MEASURED} == {"local"}


@pytest.mark.parametrize("study", MEASURED)
def test_the_figures_follow_from_the_requests(study: str, runs: Path) -> None:
    folder, spec, outcome = trial_alone(runs / study)
    assert spec.split.label == "1A"
    measured = measure_attempt(folder.attempts()[-1], spec)
    assert len(measured) == len(outcome.probes)
    for again, recorded in zip(measured, outcome.probes, strict=True):
        assert again.ttft_s == recorded.ttft_s
        assert again.tpot_s == recorded.tpot_s
        assert again.output_tps_per_gpu == recorded.output_tps_per_gpu
        assert again.loadgen_result == recorded.loadgen_result
        assert again.feasible == recorded.feasible


@pytest.mark.parametrize("study", PREDICTED)
def test_every_prediction_was_written_before_the_first_query(study: str, runs: Path) -> None:
    progress = (runs.parent / "progress.log").read_text(encoding="utf-8")
    found = re.search(rf"^(\d\d:\d\d:\d\d) .* {study} is predicted$", progress, re.MULTILINE)
    assert found is not None
    attempt = attempt_of(trial_alone(runs / study)[0])
    began = datetime.fromisoformat(attempt.started_at)
    assert attempt.phases is not None
    ready_s = attempt.phases.bring_up_s + attempt.phases.warm_up_s
    predicted = began.replace(
        **dict(zip(("hour", "minute", "second"), map(int, found[1].split(":")), strict=True))
    )
    assert (predicted - began).total_seconds() < ready_s


def test_the_table_of_steps_follows_from_the_log_and_is_made_of_mixed_steps(runs: Path) -> None:
    folder, _, _ = trial_alone(runs / "calibration")
    logs = folder.attempts()[-1] / "logs"
    steps = measure_steps(logs, adapter_named("dynamo_vllm").read_steps)
    with (runs.parent / "steps.csv").open(encoding="utf-8") as file:
        recorded = [float(row["milliseconds"]) for row in csv.DictReader(file)]
    again = [row.milliseconds for rows in steps.rows.values() for row in rows]
    assert again == pytest.approx(recorded, rel=1e-5)
    assert steps.mixed > 0.9 * steps.counted["prefill"]


def test_the_token_budget_bounds_every_step(runs: Path) -> None:
    folder, spec, _ = trial_alone(runs / "budget")
    assert max(step[1] + step[3] for step in steps_of(folder)) == spec.decode.token_budget == 512


def test_the_slots_bound_every_batch(runs: Path) -> None:
    folder, spec, _ = trial_alone(runs / "seqs")
    assert max(step[0] + step[2] for step in steps_of(folder)) == spec.decode.max_sequences == 32


def test_the_search_brackets_the_highest_rate(runs: Path) -> None:
    _, spec, outcome = trial_alone(runs / "capacity")
    held = [probe.target_qps for probe in outcome.probes if probe.feasible and probe.target_qps]
    missed = [probe.target_qps for probe in outcome.probes if not probe.feasible and probe.target_qps]
    assert all(probe.valid for probe in outcome.probes)
    assert max(held) < min(missed) < max(held) * (1 + spec.load.resolution)


def test_nothing_is_left_on_the_gpu(runs: Path) -> None:
    lines = (runs.parent / "gpus_after.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == ["NVIDIA H200, 0 MiB"]
