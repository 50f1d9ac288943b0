"""Test that the page of single trials describes the trials that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import changed, composed
from support.outcomes import measured
from support.synthetic_study import study as study_record

from tune.records.folders import StudyFolder
from tune.report.study_report import read_results, write_results
from tune.spec.load import Slo

NO_LIMIT = Slo(ttft_p99_s=None, tpot_p99_s=None)


@pytest.fixture
def singles(tmp_path: Path) -> StudyFolder:
    """Return a study of single trials that differ in rack and SLO, as the record has it."""
    folder = StudyFolder(tmp_path / "runs" / "single-sim")
    (tmp_path / "runs").mkdir()
    several = {"hardware": "several, each trial its own", "slo": NO_LIMIT}
    record = study_record(name="single-sim", space={}, base={}, baseline=False, command=())
    folder.write_study(record.model_copy(update=several))
    return folder


def add(folder: StudyFolder, number: int, status: str, *changes: str) -> None:
    spec = changed(composed(), *changes).trial_spec
    outcome = measured(number).model_copy(update={"trial_id": spec.trial_id, "status": status})
    folder.trial(spec.trial_id).write_spec(spec)
    folder.trial(spec.trial_id).write_outcome(outcome)


OWN = ("hardware.name=gb300-nvl72", "slo.ttft_p99_s=5")


@pytest.mark.slow
def test_the_page_has_the_limits_of_the_measured_trials(singles: StudyFolder, tmp_path: Path) -> None:
    add(singles, 0, "failed")
    add(singles, 1, "measured", *OWN)
    add(singles, 2, "measured", *OWN, "split.prefill_workers=13")
    results = read_results(singles)
    assert (results.record.hardware, results.record.slo.ttft_p99_s) == ("gb300-nvl72", 5.0)
    page = write_results(results, tmp_path / "reports").read_text(encoding="utf-8")
    assert "limit 5 s" in page
    assert "no limit" not in page
    assert "without limit" not in page


def test_the_record_is_of_the_measured_trials_unless_they_differ(singles: StudyFolder) -> None:
    add(singles, 1, "measured", *OWN)
    assert read_results(singles).record.slo.ttft_p99_s == 5.0
    add(singles, 0, "measured")
    assert read_results(singles).record.slo == NO_LIMIT
