"""Test that the page of a running study is there after the first batch, is true, and delays no trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Tune
from support.local_trials import Start
from support.waiting import wait_for

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false", "study.parallel=2")


@pytest.mark.slow
def test_page_says_what_holds_so_far_and_in_the_end_what_holds(start: Start, tmp_path: Path) -> None:
    page = tmp_path / "reports" / "pd_split-sim" / "index.html"
    study = start("+sweep=pd_split", "study.n_trials=8", *SHORT)
    wait_for(lambda: page.exists() or study.poll() is not None)
    assert "So far, after " in page.read_text(encoding="utf-8")
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 0, output
    assert "So far, after " not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_page_that_cannot_be_written_costs_no_trial(tune: Tune, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    done = tune("+sweep=pd_split", "study.n_trials=4", *SHORT)
    assert done.returncode == 2
    assert done.stderr.count("the report was not rewritten, the study goes on") == 1
    assert len(list((tmp_path / "runs" / "pd_split-sim").glob("*/outcome.json"))) == 4
