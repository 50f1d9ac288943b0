"""Test a command without its study: every study is listed with its state and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import changed, composed
from support.outcomes import measured

from tune.cli.confirm_command import confirm_action
from tune.cli.export_command import export
from tune.cli.recorded_commands import status_action
from tune.cli.report_commands import report_action
from tune.cli.studies import named_study, ranked_study
from tune.config import ComposedConfig, compose_overrides
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
        (tmp_path / "runs" / name).mkdir(parents=True)
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


def with_trial(folder: StudyFolder, number: int, *overrides: str, status: str = "measured") -> None:
    spec = changed(composed(), *overrides).trial_spec
    provenance = {"split": "14P4D", "workload": f"{spec.load.dataset.name}: Poisson", "overrides": []}
    changes = {"trial_id": spec.trial_id, "status": status, "provenance": provenance}
    folder.trial(spec.trial_id).write_spec(spec)
    folder.trial(spec.trial_id).write_outcome(measured(number).model_copy(update=changes))


OTHER_RACK, OTHER_SLO = "hardware.name=gb300-nvl72", "slo.ttft_p99_s=1"


def of_singles(*words: str) -> ComposedConfig:
    """Return the command with `words` and study.name=single-sim."""
    return ComposedConfig(changed(composed(), "study.name=single-sim", *words), "single-sim", words)


@pytest.mark.parametrize(
    "action", ["report", "confirm", "export export.to=sbatch", "export export.to=mlperf"]
)
def test_single_trials_of_several_questions_are_not_ranked(studies: Path, action: str) -> None:
    folder = StudyFolder(studies / "runs" / "single-sim")
    with_trial(folder, 0)
    with_trial(folder, 1, OTHER_RACK, OTHER_SLO)
    with_trial(folder, 2, OTHER_RACK, OTHER_SLO, "split.prefill_workers=13")
    first, *rest = action.split()
    act = {"report": report_action, "confirm": confirm_action, "export": export}[first]
    with pytest.raises(ConfigurationError) as caught:
        act(of_singles(f"action={first}", *rest))
    head, *questions, advice = str(caught.value).splitlines()
    assert head == (
        f"action={first}: the trials of single-sim cannot be ranked; expected one rack, model, workload and "
        "SLO, found 2."
    )
    assert questions == [
        "  18 nodes x 4 gb200-nvl72; p99 TTFT 4.5 s, p99 TPOT 80 ms: trial 0",
        "  18 nodes x 4 gb300-nvl72; p99 TTFT 1 s, p99 TPOT 80 ms: trial 1, trial 2",
    ]
    assert "study.name=NAME" in advice
    assert not (studies / "reports").exists()


def test_the_status_of_single_trials_of_several_questions_names_no_best_one(
    studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder(studies / "runs" / "single-sim")
    with_trial(folder, 0)
    composition = of_singles("action=status")
    status_action(composition)
    assert "tokens/s/GPU" in capsys.readouterr().out
    with_trial(folder, 1, OTHER_SLO)
    status_action(composition)
    shown = capsys.readouterr().out
    assert "tokens/s/GPU" not in shown
    assert "best      not asked of trials of different racks, models, workloads or SLOs" in shown


def test_single_trials_of_one_question_are_ranked_whatever_their_split_and_rate(studies: Path) -> None:
    folder = StudyFolder(studies / "runs" / "single-sim")
    with_trial(folder, 0)
    with_trial(folder, 1, "split.prefill_workers=13", "load.target_qps=14", "load.shuffle_seed=3")
    with_trial(folder, 2, OTHER_RACK, status="failed")
    _, record = ranked_study(of_singles("action=report"))
    assert record.name == "single-sim"
