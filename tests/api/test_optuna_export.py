"""Check that Optuna opens what `action=export export.to=optuna` writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import tune
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.study.optuna_export import export_to_optuna


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tune", "action=export", "study.name=short", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def opened(file: Path) -> optuna.Study:
    storage: str | BaseStorage = f"sqlite:///{file}"
    if file.suffix != ".db":
        storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name="short", storage=storage)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "mine/study.db"])
def test_optuna_opens_the_exported_study(recorded: Path, name: str | None) -> None:
    done = run(recorded, "export.to=optuna", *([f"export.file={name}"] if name else []))
    assert done.returncode == 0, done.stderr
    study = opened(recorded / (name or "reports/short/optuna.log"))
    trials = tune.load_study(recorded / "runs" / "short").trials
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    for exported, trial in zip(study.trials, trials, strict=True):
        assert (exported.number, exported.state) == (trial.number, TrialState.COMPLETE)
        assert exported.params == dict(trial.params)
        assert exported.value == (trial.outcome.output_tps_per_gpu or 0.0)
        assert (exported.constraints["feasible"] <= 0) is trial.outcome.feasible
        assert exported.user_attrs["trial_id"] == trial.trial_id
        attempts = trial.outcome.attempts
        recorded_at = [datetime.fromisoformat(at) for at in (attempts[0].started_at, attempts[-1].ended_at)]
        exported_at = [exported.datetime_start, exported.datetime_complete]
        assert [at.timestamp() for at in exported_at if at] == [at.timestamp() for at in recorded_at]
    best = tune.load_study(recorded / "runs" / "short").best()
    assert best
    assert study.best_trial.user_attrs["trial_id"] == best.trial_id


@pytest.fixture
def short(recorded: Path, tmp_path: Path) -> StudyFolder:
    """Return a copy of the recorded study that a test may change."""
    shutil.copytree(recorded / "runs" / "short", tmp_path / "short")
    return StudyFolder(tmp_path / "short")


@pytest.mark.slow
def test_limits_that_are_lifted_are_no_constraints(short: StudyFolder, tmp_path: Path) -> None:
    outcome = short.outcomes()[0]
    lifted = outcome.constraints.model_copy(update={"tpot_p99": None})
    short.trial(outcome.trial_id).write_outcome(outcome.model_copy(update={"constraints": lifted}))
    record = short.read_study()
    assert record
    export_to_optuna(short, record, tmp_path / "optuna.log")
    names = set(opened(tmp_path / "optuna.log").trials[0].constraints)
    assert "tpot_p99" not in names
    assert {"feasible", "ttft_p99"} <= names


@pytest.mark.slow
def test_failed_and_running_trials_have_no_value(short: StudyFolder, tmp_path: Path) -> None:
    first, second = short.outcomes()[:2]
    short.trial(first.trial_id).write_outcome(first.model_copy(update={"status": "failed"}))
    (short.trial(second.trial_id).root / "outcome.json").unlink()
    record = short.read_study()
    assert record
    assert export_to_optuna(short, record, tmp_path / "optuna.log") == len(short.read_proposals())
    trials = opened(tmp_path / "optuna.log").trials
    assert (trials[0].state, trials[0].value) == (TrialState.FAIL, None)
    assert (trials[1].state, trials[1].value) == (TrialState.RUNNING, None)


@pytest.mark.slow
def test_an_export_replaces_only_an_earlier_export(short: StudyFolder, tmp_path: Path) -> None:
    record = short.read_study()
    assert record
    file = tmp_path / "optuna.log"
    for _ in range(2):
        export_to_optuna(short, record, file)
    assert len(opened(file).trials) == len(short.read_proposals())
    assert {path.name for path in tmp_path.iterdir()} == {"short", "optuna.log"}
    file.write_text("not an export")
    with pytest.raises(ConfigurationError, match="not written by action=export"):
        export_to_optuna(short, record, file)


@pytest.mark.slow
def test_an_export_without_format_or_study_is_refused(recorded: Path) -> None:
    unnamed = run(recorded)
    assert (unnamed.returncode, "action=export needs export.to=FORMAT: optuna" in unnamed.stderr) == (2, True)
    unknown = run(recorded, "export.to=optuna", "study.name=missing")
    assert (unknown.returncode, "no study there" in unknown.stderr) == (2, True)
