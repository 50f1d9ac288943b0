"""Test that records of every earlier version open, with the figures that the version itself read."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from shutil import copytree

import pytest
from support.recorded_studies import figures_of

from tune.records.folders import StudyFolder, TrialFolder
from tune.records.posterior_summary import read_posterior, write_posterior
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.engine_table import ENGINES
from tune.study.confirmation_candidates import select_candidates

HERE = Path(__file__).parent
VERSIONS = sorted(path.stem for path in HERE.glob("*.json"))


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runs(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the studies of a version."""
    folder = tmp_path_factory.mktemp(version) / "runs"
    with tarfile.open(HERE / f"{version}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return folder


KINDS = (
    *("study.json", "proposals.jsonl", "spec.json", "outcome.json", "attempt.json", "requests.npz"),
    *("posterior.json", "confirmation.json", "capacity.json", "early_stop.json", "probe_request.json"),
    *("shuffles.json", "metrics.jsonl", "evidence.json", "held.json", "limit.json", "gpus.json"),
    *("accuracy.json", "job.json", "mlperf_log_summary.txt"),
)
"""Files of a study that later versions read."""


def test_records_of_every_kind_are_kept() -> None:
    kept = set()
    for version in VERSIONS:
        with tarfile.open(HERE / f"{version}.tar.xz") as tar:
            kept |= {Path(name).name for name in tar.getnames()}
    assert not set(KINDS) - kept


def test_trials_of_every_engine_and_with_drafts_are_kept(tmp_path: Path) -> None:
    specs = []
    for version in VERSIONS:
        with tarfile.open(HERE / f"{version}.tar.xz") as tar:
            for member in (each for each in tar.getmembers() if each.name.endswith("/spec.json")):
                tar.extract(member, tmp_path, filter="data")
                specs.append(TrialFolder(tmp_path / Path(member.name).parent).read_spec())
    assert {spec.stack.engine for spec in specs if spec} == set(ENGINES)
    assert {spec.decode.draft_tokens for spec in specs if spec} == {0, 3}


def test_readers_find_the_figures_of_the_version_that_wrote_them(version: str, runs: Path) -> None:
    assert figures_of(runs) == json.loads((HERE / f"{version}.json").read_text(encoding="utf-8"))


def test_packed_records_stay_small(version: str) -> None:
    assert (HERE / f"{version}.tar.xz").stat().st_size < 300_000


@pytest.mark.parametrize("version", ["0.2.0", "0.2.0-closed-loops"], indirect=True)
def test_a_study_without_points_of_its_kinds_is_confirmed_by_its_trials(runs: Path, tmp_path: Path) -> None:
    folder = StudyFolder(copytree(runs / "capacity", tmp_path / "capacity"))
    record, posterior = folder.read_study(), read_posterior(folder.root)
    assert record
    assert posterior
    kinds = tuple(kind.model_copy(update={"params": None}) for kind in posterior.kinds)
    write_posterior(folder.root, posterior.model_copy(update={"kinds": kinds}))
    confirm = ConfirmSettings(configurations=3, repeats=2, confidence=0.95)
    chosen = select_candidates(folder, record, confirm)
    assert len(chosen) in {2, 3}, "one of each kind that was measured"
    assert {each.trial_id for each in chosen} <= {outcome.trial_id for outcome in folder.outcomes()}


@pytest.mark.slow
def test_recorded_studies_are_reported(runs: Path) -> None:
    """Too few queries or an answer without a score make a trial invalid: such a study has no winner."""
    for study in (path.name for path in runs.iterdir() if not path.name.endswith(".confirm")):
        done = subprocess.run(
            [sys.executable, "-m", "tune", "action=report", f"study.name={study}"],
            cwd=runs.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        held = study not in {"live", "slurm", "accuracy"}
        assert done.returncode == (0 if held else 1), (study, done.stderr)
        assert (runs.parent / "reports" / study / "index.html").exists()
