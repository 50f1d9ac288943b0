"""Test that a trial whose spec.json is gone is composed again from the record of its study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.composed import composed
from support.studies import run_composed_study

from tune.analysis.ranking import rank
from tune.errors import ResumableError
from tune.records.folders import StudyFolder
from tune.study.confirmation_candidates import ConfirmationCandidate, select_candidates

WORDS = (
    *("+sweep=pd_split", "study.n_trials=6", "study.name=missing", "load.dataset.samples=2000"),
    *("load.min_duration_s=60.0", "load.min_queries=2000", "load.concatenate_permutation=false"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a study at fixed rates; return the runs folder."""
    runs = tmp_path_factory.mktemp("runs")
    run_composed_study(runs, WORDS)
    return runs


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> StudyFolder:
    """Return a copy of the study."""
    shutil.copytree(whole, tmp_path / "runs")
    return StudyFolder(tmp_path / "runs" / "missing")


def chosen(study: StudyFolder) -> tuple[ConfirmationCandidate, ...]:
    record = study.read_study()
    assert record
    return select_candidates(study, record, composed().confirm)


@pytest.mark.slow
def test_confirmation_composes_trials_without_their_file(study: StudyFolder) -> None:
    expected = chosen(study)
    for trial in study.trials():
        (trial.root / "spec.json").unlink()
    assert [candidate.specs for candidate in chosen(study)] == [candidate.specs for candidate in expected]
    assert len(expected) > 1


@pytest.mark.slow
def test_what_is_advised_where_no_record_composes_the_trial_leads_on(study: StudyFolder) -> None:
    best = next(row["trial_id"] for row in rank(study.outcomes()) if row["feasible"])
    expected = chosen(study)
    record = study.read_study()
    assert record
    study.write_study(record.model_copy(update={"base": {}}))
    (study.trial(best).root / "spec.json").unlink()
    with pytest.raises(ResumableError, match=rf"{best}/spec\.json: found none.* or move .*{best} away: this"):
        chosen(study)
    shutil.move(study.trial(best).root, study.root.parent / "away")
    assert best not in {candidate.trial_id for candidate in chosen(study)}
    study.write_study(record)
    run_composed_study(study.root.parent, WORDS)
    assert [candidate.specs for candidate in chosen(study)] == [candidate.specs for candidate in expected]
