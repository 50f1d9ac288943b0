"""Test that a record that cannot be read is named, and never taken for a missing one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.composed import composed
from support.outcomes import measured
from support.privileges import as_nobody_special
from support.synthetic_study import SPLIT_SPACE
from support.synthetic_study import study as study_record

from tune.core.locks import is_file_locked
from tune.errors import ConfigurationError, ResumableError
from tune.loadgen.log_reader import read_logs
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import StudyFolder, read_attempt, write_attempt
from tune.records.proposals import Proposal
from tune.records.requests import read_requests

STAMP = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """Return a study with one trial and all its records."""
    study = StudyFolder(tmp_path / "study")
    trial = study.trial("t0")
    probe = trial.raw / "1" / "probe-1"
    probe.mkdir(parents=True)
    study.write_study(study_record(space=SPLIT_SPACE))
    study.append_proposal(Proposal(number=0, params={}, source="random", trial_id="t0"))
    trial.write_spec(composed().trial_spec)
    trial.write_outcome(measured(0).model_copy(update={"trial_id": "t0"}))
    write_attempt(trial.raw / "1", AttemptRecord(started_at=STAMP, ended_at=STAMP, occupied_s=1.0))
    for name in ("requests.npz", "mlperf_log_detail.txt"):
        (probe / name).touch()
    return study


READERS: dict[str, Callable[[StudyFolder], object]] = {
    "study.json": StudyFolder.read_study,
    "proposals.jsonl": StudyFolder.read_proposals,
    "t0/spec.json": lambda study: study.trial("t0").read_spec(),
    "t0/outcome.json": StudyFolder.outcomes,
    "t0/raw/1/attempt.json": lambda study: read_attempt(study.root / "t0/raw/1"),
    "t0/raw/1/probe-1/requests.npz": lambda study: read_requests(
        study.root / "t0/raw/1/probe-1/requests.npz"
    ),
    "t0/raw/1/probe-1/mlperf_log_detail.txt": lambda study: read_logs(study.root / "t0/raw/1/probe-1"),
}


def forbid(path: Path) -> None:
    path.chmod(0)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", [forbid, pipe, dangle])
def test_a_record_that_cannot_be_read_is_named(
    name: str, damage: Callable[[Path], None], study: StudyFolder
) -> None:
    path = study.root / name
    damage(path)
    shown = path.parent if "mlperf" in name and damage is dangle else path
    with as_nobody_special(), pytest.raises(ResumableError, match=f"{shown}: .*; expected"):
        READERS[name](study)


@pytest.mark.parametrize("read", [StudyFolder.outcomes, StudyFolder.trials, StudyFolder.unjudged])
def test_a_trial_that_cannot_be_looked_into_is_named(
    read: Callable[[StudyFolder], object], study: StudyFolder
) -> None:
    """Else the study would seem to have a trial less."""
    forbid(study.root / "t0")
    with as_nobody_special(), pytest.raises(ResumableError, match=r"study/t0: cannot be read \(Permission"):
        read(study)


def test_a_pipe_in_place_of_the_lock_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(ConfigurationError, match=r"\.lock: cannot be locked \(no regular file\)"):
        is_file_locked(tmp_path / ".lock")
