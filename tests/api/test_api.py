"""Check the Python interface for notebooks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tune
from tune import api
from tune.errors import ConfigurationError, ResumableError
from tune.spec.trial import TrialSpec

SHORT = ["load.min_duration_s=30", "load.concatenate_permutation=false"]


def test_importing_the_package_loads_no_dependency() -> None:
    code = (
        "import sys, tune\n"
        "print(sorted({'numpy', 'pandas', 'optuna', 'hydra', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_listed_and_load() -> None:
    names = {"Study", "Trial", "compose", "load_study", "simulate"}
    assert names <= set(dir(tune))
    assert all(getattr(tune, name) is getattr(api, name) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        tune.solve  # noqa: B018


def test_the_version_heads_the_changelog(root: Path) -> None:
    headings = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == tune.__version__


def test_compose_returns_typed_settings() -> None:
    settings = tune.compose(["split.prefill_workers=13", "load.target_qps=14"])
    assert (settings.split.prefill_workers, settings.load.target_qps) == (13, 14.0)
    assert isinstance(settings.trial_spec, TrialSpec)


def test_compose_refuses_a_misspelt_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean load\.target_qps"):
        tune.compose(["load.target_qpss=14"])


@pytest.mark.slow
def test_compose_finds_options_in_config_dirs(tmp_path: Path) -> None:
    (tmp_path / "slo").mkdir()
    shipped = tune.compose().slo.model_dump() | {"ttft_p99_s": 9.0}
    (tmp_path / "slo" / "loose.yaml").write_text(json.dumps(shipped))
    assert tune.compose(["slo=loose"], [tmp_path]).slo.ttft_p99_s == 9.0


@pytest.mark.slow
def test_simulate_agrees_with_the_command_line(tmp_path: Path) -> None:
    spec = tune.compose(SHORT).trial_spec
    outcome = tune.simulate(spec)
    command = [sys.executable, "-m", "tune", *SHORT]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (trial,) = tune.load_study(tmp_path / "runs" / "single-sim").trials
    assert trial.spec == spec
    assert outcome.trial_id == spec.trial_id
    assert outcome.probes == trial.outcome.probes
    assert outcome.output_tps_per_gpu == trial.outcome.output_tps_per_gpu


@pytest.mark.slow
def test_simulate_takes_another_calibration() -> None:
    settings = tune.compose(SHORT)
    assert settings.cluster.calibration
    slow = settings.cluster.calibration.model_copy(update={"prefill_scale": 1.2})
    shipped, slowed = tune.simulate(settings.trial_spec), tune.simulate(settings.trial_spec, slow)
    assert shipped.ttft_s
    assert slowed.ttft_s
    assert slowed.ttft_s.p99 > shipped.ttft_s.p99


@pytest.mark.slow
def test_simulate_returns_a_broken_rule_as_infeasible() -> None:
    outcome = tune.simulate(tune.compose(["split.prefill_workers=30"]).trial_spec)
    assert outcome.status == "infeasible"
    assert outcome.reason


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no study there"):
        tune.load_study(tmp_path)


@pytest.mark.slow
def test_a_loaded_study_holds_typed_trials(recorded: Path) -> None:
    study = tune.load_study(str(recorded / "runs" / "short"))
    assert study.record.name == "short"
    assert [trial.number for trial in study.trials] == sorted(trial.number for trial in study.trials)
    for trial in study.trials:
        assert trial.trial_id == trial.spec.trial_id == trial.folder.name
        assert set(trial.params) <= set(study.record.space)
    assert study.trials[0].overrides


@pytest.mark.slow
def test_frame_and_best_agree_with_the_ranking(recorded: Path) -> None:
    study = tune.load_study(recorded / "runs" / "short")
    table, best = study.frame(), study.best()
    assert len(table) == len(study.trials)
    assert best
    assert best.outcome.output_tps_per_gpu == table[table["feasible"]]["output_tps_per_gpu"].max()
    ranking = json.loads((recorded / "reports" / "short" / "ranking.json").read_text())
    assert (best.trial_id, list(best.overrides)) == (ranking[0]["trial_id"], ranking[0]["overrides"])


@pytest.mark.slow
def test_a_study_without_a_surrogate_has_no_posterior(recorded: Path) -> None:
    assert tune.load_study(recorded / "runs" / "short").posterior() is None


@pytest.mark.slow
def test_the_posterior_is_read_from_the_study_folder(recorded: Path, tmp_path: Path) -> None:
    shutil.copy(recorded / "runs" / "short" / "study.json", tmp_path)
    (tmp_path / "posterior.json").write_text("{}")
    with pytest.raises(ResumableError, match=r"posterior\.json"):
        tune.load_study(tmp_path).posterior()
