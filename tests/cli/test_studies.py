"""A command without its study: every study is listed with its state and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.cli.studies import named_study
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.spec.settings import Settings
from tune.study.identity import study_record


def listed(*words: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        named_study(compose_overrides(words))
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


@pytest.fixture
def studies(tmp_path: Path, shipped: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "another"):
        StudyFolder(tmp_path / "runs" / name).write_study(study_record(shipped, name, ("cluster=sim",)))
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "study.json").write_text("{")
    (tmp_path / "runs" / "single-sim").mkdir()
    StudyFolder(tmp_path / "runs" / "single-sim").write_study(study_record(shipped, "single-sim", ()))
    return tmp_path


def test_single_trials_are_not_taken_for_a_study_that_was_not_named(studies: Path) -> None:
    head, *lines = listed("action=confirm")
    assert head == "action=confirm: found no study; expected study.name=NAME."
    assert sorted(line.split()[0] for line in lines) == ["another", "one", "single-sim", "torn"]
    one = next(line for line in lines if line.split()[0] == "one")
    assert one.endswith("single trials: 0           python -m tune action=confirm study.name=one cluster=sim")
    assert "not readable" in next(line for line in lines if "torn" in line)


def test_words_of_the_command_are_kept(studies: Path) -> None:
    (line,) = (line for line in listed("action=export", "export.to=optuna") if " another " in line)
    assert line.endswith("python -m tune action=export export.to=optuna study.name=another cluster=sim")


def test_no_study_leads_to_the_first(tmp_path: Path) -> None:
    assert "python -m tune +sweep=pd_split runs one" in listed("action=status", f"runs_dir={tmp_path}")[1]


def test_named_study_is_opened(studies: Path) -> None:
    _, record = named_study(compose_overrides(["action=status", "study.name=one"]))
    assert record.name == "one"
