"""Test that findings on a run are shown in terminal, page and CSV, with details where a check fails."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.chromium import CHROMIUM, opened
from support.report_page import page_of
from support.synthetic_search import searched_trial
from support.synthetic_study import SLO, study, synthetic_trial, unmeasured

from tune.analysis.run_checks.table import CHECKS
from tune.records.outcome import Outcome
from tune.records.run_check import CheckResult, RunCheck
from tune.report.run_check_text import check_lines, check_title
from tune.report.terminal import render_outcome

SLOW = "decode_w1 on g04 took 58 ms a token, its peer 45 ms: 1.29 times, up to 1.15 may be"


def checks(**results: CheckResult) -> tuple[RunCheck, ...]:
    """Return all checks, as meant unless `results` says otherwise."""
    return tuple(
        RunCheck(
            name=kind.name,
            result=results.get(kind.name, "as_meant"),
            found=SLOW if kind.name == "worker_speed" else f"found of {kind.title}",
            threshold=kind.threshold,
            evidence=("raw/1/probe-1/metrics.jsonl:7",),
        )
        for kind in CHECKS
    )


def ran(**results: CheckResult) -> Outcome:
    return synthetic_trial(0).model_copy(update={"checks": checks(**results)})


def terminal(outcome: Outcome) -> list[str]:
    return render_outcome(outcome, SLO, study(backend="slurm")).splitlines()


def test_result_has_one_line_where_nothing_is_off() -> None:
    (line,) = [line for line in terminal(ran(kv_transfers="not_counted")) if "checked" in line]
    assert line == (
        "checked   as meant: earlier requests, speed of workers, load client, clocks of GPUs; "
        "not counted: KV transfers"
    )


def test_what_is_off_follows_in_words() -> None:
    lines = terminal(ran(worker_speed="off", clocks="not_counted"))
    at = next(index for index, line in enumerate(lines) if line.startswith("checked"))
    assert lines[at].startswith("checked   off: speed of workers; as meant: KV transfers, ")
    assert lines[at + 1] == f"          speed of workers: {SLOW}"


def test_probe_of_a_search_that_is_not_judged_is_named_by_its_rate() -> None:
    searched = searched_trial(0)
    first, *others = searched.probes
    left = first.model_copy(update={"checks": checks(leftovers="off")})
    lines = terminal(searched.model_copy(update={"probes": (left, *others), "checks": checks()}))
    said = f"earlier requests at {first.target_qps:g} queries/s: found of earlier requests"
    assert f"          {said}" in lines


def test_simulated_and_unmeasured_trials_have_no_such_line() -> None:
    for outcome in (synthetic_trial(0), unmeasured(0, "failed", "gb07 went down")):
        assert not [line for line in terminal(outcome) if line.startswith("checked")]
        assert check_lines(outcome) == []


def test_status_of_a_trial_has_threshold_evidence_and_remedy() -> None:
    lines = check_lines(ran(worker_speed="off", clocks="not_counted"))
    kind = next(kind for kind in CHECKS if kind.name == "worker_speed")
    assert lines[:4] == [
        f"off         speed of workers: {SLOW}",
        f"            expected: {kind.threshold}",
        "            see raw/1/probe-1/metrics.jsonl:7",
        f"            {kind.remedy}",
    ]
    assert lines[-3] == "not counted clocks of GPUs: found of clocks of GPUs"
    assert len(lines) == 3 * len(CHECKS) + 1


def test_check_of_a_later_version_keeps_its_name() -> None:
    assert check_title(checks()[0].model_copy(update={"name": "weather"})) == "weather"


@pytest.mark.parametrize("outcome", [ran(worker_speed="off", clocks="not_counted"), synthetic_trial(0)])
def test_page_and_csv_show_the_checks(outcome: Outcome, tmp_path: Path) -> None:
    page = page_of(tmp_path, study(backend="slurm"), [outcome])
    with (tmp_path / "ranking.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    (trial,) = page.trials
    note = f"Not measured as meant: speed of workers: {SLOW}."
    if not outcome.checks:
        assert trial["checks"] == []
        assert (row["checks_off"], row["checks_not_counted"]) == ("", "")
        return
    assert [check[:2] for check in trial["checks"]] == [
        ["KV transfers", "as meant"],
        ["earlier requests", "as meant"],
        ["speed of workers", "off"],
        ["load client", "as meant"],
        ["clocks of GPUs", "not counted"],
    ]
    assert (row["checks_off"], row["checks_not_counted"]) == ("worker_speed", "clocks")
    assert note in page.text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_details_of_a_trial_list_its_checks(tmp_path: Path) -> None:
    page_of(tmp_path / "report", study(backend="slurm"), [ran(worker_speed="off")])
    with opened(tmp_path / "report" / "index.html", tmp_path / "profile") as tab:
        tab.evaluate("document.querySelector('#trials tbody tr.row button').click()")
        items = tab.evaluate("[...document.querySelectorAll('.checks li')].map((item) => item.textContent)")
    expected = next(kind.threshold for kind in CHECKS if kind.name == "worker_speed")
    assert items[0] == "KV transfers: as meant. found of KV transfers"
    assert items[2] == f"speed of workers: off. {SLOW} (expected: {expected})"
    assert len(items) == len(CHECKS)
