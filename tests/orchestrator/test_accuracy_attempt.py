"""Run performance and accuracy in one deployment, with real processes and the real LoadGen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.accuracy_dataset import AccuracyFiles, write_accuracy_files
from support.composed import composed
from support.fake_deployment import MakeTrial, Trial, assert_nothing_left

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.loadgen.log_reader import read_logs
from tune.manifest.process_manifest import CALIBRATION_FILE
from tune.orchestrator.slurm.node_check import findings_on_accuracy
from tune.records.accuracy import ACCURACY_FOLDER, read_accuracy
from tune.records.capacity_search import read_capacity, read_probe_request
from tune.spec.dataset import Dataset
from tune.spec.load import Slo
from tune.spec.trial import TrialSpec


@pytest.fixture
def files(tmp_path: Path) -> AccuracyFiles:
    return write_accuracy_files(tmp_path, 20)


def make(
    make_trial: MakeTrial, files: AccuracyFiles, tokenizer: Path, slo: Slo | None = None, **load_changes: Any
) -> Trial:
    """Return a trial of 60 queries over the 20 samples of `files`, with an accuracy run."""

    def alter(spec: TrialSpec) -> TrialSpec:
        own = {name.rpartition("__")[2]: value for name, value in files.changes.items() if "__" in name}
        dataset = Dataset.model_validate({**spec.load.dataset.model_dump(), **own})
        load = spec.load.model_copy(update={"dataset": dataset, "accuracy": True, **load_changes})
        return spec.model_copy(update={"load": load, "slo": slo or spec.slo})

    return make_trial(real_client=True, alter=alter, tokenizer=str(tokenizer))


@pytest.mark.slow
def test_accuracy_follows_on_the_same_deployment_and_wrong_answers_make_the_trial_invalid(
    make_trial: MakeTrial, files: AccuracyFiles
) -> None:
    trial = make(make_trial, files, files.tokenizer)
    code, said = trial.run()
    assert code == 0, said
    assert said.count("started 4 processes") == 1, said
    assert read_logs(trial.attempt / "probe-1").mode == "PerformanceOnly"
    assert read_logs(trial.attempt / ACCURACY_FOLDER).mode == "AccuracyOnly"
    accuracy = read_accuracy(trial.attempt)
    assert accuracy is not None
    assert (accuracy.samples, accuracy.failed, accuracy.target_qps) == (20, 0, 60.0)
    logs = {path.name: path.read_text() for path in trial.attempt.glob("mlperf_benchmark_*.log")}
    kinds = [re.fullmatch(r"mlperf_benchmark_(\w+)_\d{8}_\d{6}\.log", name) for name in sorted(logs)]
    assert [kind and kind[1] for kind in kinds] == ["accuracy", "performance"]
    of_accuracy, of_performance = (logs[name] for name in sorted(logs))
    assert accuracy.result_line in of_accuracy
    assert "Completed tokens per second" in of_performance
    probes = measure_attempt(trial.attempt, trial.spec)
    assert len(probes) == 1, "the accuracy run is no probe"
    outcome = judge(trial.spec, probes, TrialFacts(0, "command"), accuracy=accuracy)
    assert (outcome.valid, outcome.feasible) == (False, False)
    assert outcome.reason is not None
    assert outcome.reason.startswith("accuracy missed: ROUGE-L ")
    assert_nothing_left(trial)


SEARCHED = {
    "mode": "capacity",
    "target_qps": 100.0,
    "rate_range_qps": (100.0, 100.0),
    "min_queries": 1000,
    "min_duration_s": 1.0,
}
"""A search with a short and a full run at one rate: what the simulator expects of stand-ins means nothing."""


def make_searching(make_trial: MakeTrial, files: AccuracyFiles, slo: Slo | None = None) -> Trial:
    """Return a trial that searches for its capacity and then makes an accuracy run."""
    trial = make(make_trial, files, files.tokenizer, slo, **SEARCHED)
    calibration = composed().cluster.calibration
    assert calibration is not None
    (trial.folder.plan / CALIBRATION_FILE).write_text(calibration.model_dump_json())
    return trial


@pytest.mark.slow
def test_accuracy_follows_a_capacity_search_at_the_verified_rate(
    make_trial: MakeTrial, files: AccuracyFiles
) -> None:
    trial = make_searching(make_trial, files)
    code, said = trial.run()
    assert code == 0, said
    assert said.count("started 4 processes") == 1, said
    capacity, accuracy = read_capacity(trial.attempt), read_accuracy(trial.attempt)
    assert capacity is not None
    assert accuracy is not None
    assert capacity.verified_qps == accuracy.target_qps == SEARCHED["target_qps"]
    assert (accuracy.samples, accuracy.failed) == (20, 0)
    modes = [read_logs(trial.attempt / name).mode for name in ("probe-1", "probe-2", ACCURACY_FOLDER)]
    assert modes == ["PerformanceOnly", "PerformanceOnly", "AccuracyOnly"]
    requested = [read_probe_request(trial.attempt / f"probe-{number}") for number in (1, 2)]
    assert [request and request.queries for request in requested] == [459, None]
    (performance,) = trial.attempt.glob("mlperf_benchmark_performance_*.log")
    assert "1000 queries over" in performance.read_text(), "the benchmark's log is that of the full run"
    probes = measure_attempt(trial.attempt, trial.spec)
    assert len(probes) == 2, "the accuracy run is no probe"
    assert [check.result for check in probes[1].checks if check.name == "leftovers"] == ["as_meant"]
    outcome = judge(trial.spec, probes, TrialFacts(0, "command"), search=capacity, accuracy=accuracy)
    assert (outcome.valid, outcome.feasible) == (False, False), "stand-ins answer nonsense"
    assert outcome.capacity_qps.low == SEARCHED["target_qps"]
    assert (outcome.reason or "").startswith("accuracy missed: ROUGE-L ")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_search_in_which_no_rate_holds_makes_no_accuracy_run(
    make_trial: MakeTrial, files: AccuracyFiles
) -> None:
    trial = make_searching(make_trial, files, Slo(ttft_p99_s=1e-6, tpot_p99_s=None))
    code, said = trial.run()
    assert code == 0, said
    assert "no run of full length held its SLO" in said
    capacity = read_capacity(trial.attempt)
    assert capacity is not None
    assert capacity.verified_qps is None
    assert read_accuracy(trial.attempt) is None
    assert not (trial.attempt / ACCURACY_FOLDER).exists()
    assert not list(trial.attempt.glob("mlperf_benchmark_*"))
    assert_nothing_left(trial)


@pytest.mark.slow
def test_missing_tokenizer_fails_before_any_process_starts(
    make_trial: MakeTrial, files: AccuracyFiles, tmp_path: Path
) -> None:
    trial = make(make_trial, files, tmp_path / "nowhere.json")
    code, said = trial.run()
    assert code == 3, said
    assert "nowhere.json: no tokenizer was read" in (trial.record.error or "")
    assert not (trial.attempt / "logs").exists()
    (finding,) = findings_on_accuracy(trial.folder.plan)
    assert finding.path == "load.accuracy"
    assert "nowhere.json: no tokenizer was read" in finding.found
    assert findings_on_accuracy(tmp_path) == ()
