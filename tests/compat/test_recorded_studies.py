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

from tune.records.folders import StudyFolder
from tune.records.posterior_summary import read_posterior, write_posterior
from tune.spec.confirm_settings import ConfirmSettings
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


def test_records_of_some_version_are_kept() -> None:
    assert VERSIONS


def test_readers_find_the_figures_of_the_version_that_wrote_them(version: str, runs: Path) -> None:
    assert figures_of(runs) == json.loads((HERE / f"{version}.json").read_text(encoding="utf-8"))


def test_packed_records_stay_small(version: str) -> None:
    assert (HERE / f"{version}.tar.xz").stat().st_size < 300_000


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
@pytest.mark.parametrize(
    ("study", "code"), [("fixed", 0), ("capacity", 0), ("aggregated", 0), ("closed", 0), ("live", 1)]
)
def test_a_recorded_study_is_reported(study: str, code: int, runs: Path, version: str) -> None:
    if study in {"aggregated", "closed"} and version == "0.2.0":
        assert not (runs / study).exists()
        return
    done = subprocess.run(
        [sys.executable, "-m", "tune", "action=report", f"study.name={study}"],
        cwd=runs.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (runs.parent / "reports" / study / "index.html").exists()
