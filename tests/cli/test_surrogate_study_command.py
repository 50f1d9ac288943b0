"""Test that the posterior of a search reaches terminal and page from the study's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tune.records.posterior_summary import Interval, ParameterPosterior, PosteriorSummary, write_posterior

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false", "cluster.processes=1")
POSTERIOR = PosteriorSummary(
    schema=2,
    trials_observed=2,
    parameters=(
        ParameterPosterior(
            name="prefill_scale",
            prior=Interval(low=0.6, median=1.0, high=1.65),
            posterior=Interval(low=0.8, median=0.85, high=0.9),
        ),
    ),
    hypotheses=(),
    trials=(),
    expected_improvement_frac=0.02,
    calibration={},
)


def printed(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tune", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_status_report_and_page_show_posterior_json(tmp_path: Path) -> None:
    study = ("+sweep=pd_split", "study.n_trials=2", "search=random", *SHORT)
    assert "learned" not in printed(tmp_path, *study)
    write_posterior(tmp_path / "runs" / "pd_split-sim", POSTERIOR)
    expected = (
        "learned   prefill kernels ×0.85 (0.80 to 0.90)\n"
        "          as factors on the calibrated values, with 90 % intervals\n"
        "next      Another trial is expected"
    )
    for words in (("action=status",), ("action=report",)):
        assert expected in printed(tmp_path, *words, "study.name=pd_split-sim")
    page = tmp_path / "reports" / "pd_split-sim" / "index.html"
    assert 'id="learned"' in page.read_text(encoding="utf-8")
    page.unlink()
    once = ("confirm.configurations=1", "confirm.repeats=1")
    assert "confirm   " in printed(tmp_path, "action=confirm", "study.name=pd_split-sim", *once)
    text = page.read_text(encoding="utf-8")
    assert 'id="learned"' in text
    assert 'id="confirmed"' in text
