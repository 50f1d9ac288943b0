"""Run performance and accuracy in one deployment, with real processes and the real LoadGen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.accuracy_dataset import AccuracyFiles, write_accuracy_files
from support.fake_deployment import MakeTrial, Trial, assert_nothing_left

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.loadgen.log_reader import read_logs
from tune.orchestrator.slurm.node_check import findings_on_accuracy
from tune.records.accuracy import ACCURACY_FOLDER, read_accuracy
from tune.spec.dataset import Dataset
from tune.spec.trial import TrialSpec


@pytest.fixture
def files(tmp_path: Path) -> AccuracyFiles:
    return write_accuracy_files(tmp_path, 20)


def make(make_trial: MakeTrial, files: AccuracyFiles, tokenizer: Path) -> Trial:
    """Return a trial of 60 queries over the 20 samples of `files`, with an accuracy run."""

    def alter(spec: TrialSpec) -> TrialSpec:
        own = {name.rpartition("__")[2]: value for name, value in files.changes.items() if "__" in name}
        dataset = Dataset.model_validate({**spec.load.dataset.model_dump(), **own})
        load = spec.load.model_copy(update={"dataset": dataset, "accuracy": True})
        return spec.model_copy(update={"load": load})

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
