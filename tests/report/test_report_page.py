"""Test the page of a report: one file that loads nothing, with every trial."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version
from support.report_page import Page, page_of
from support.synthetic_search import probe_at, searched_trial
from support.synthetic_study import RATE_SPACE, mixed, study, synthetic_trial, unmeasured

from tune.errors import ConfigurationError
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import plotly_basic
from tune.report.page import write_report
from tune.spec.load import Slo

GOLDEN = Path(__file__).parent / "golden_page.html"
LIFTED = Slo(ttft_p99_s=None, tpot_p99_s=None)
NASTY = """</script><script>alert("1")</script><!-- 'it' & <b>"quotes"</b> \u2028 ${x} {{ y }}"""

Cases = dict[str, tuple[StudyRecord, list[Outcome]]]
CASES: Cases = {
    "no outcomes": (study(), []),
    "one trial": (study(name="single-sim", space={}, baseline=False, command=()), [synthetic_trial(0)]),
    "none feasible": (study(), [synthetic_trial(i, ttft_p99_s=5.0 + i) for i in range(6)]),
    "all failed": (study(), [unmeasured(i, "failed", "gb07 went down") for i in range(4)]),
    "all infeasible, no reason": (study(), [unmeasured(i, "infeasible", None) for i in range(4)]),
    "lifted limits": (study(slo=LIFTED), [synthetic_trial(i, slo=LIFTED, qps=9.0 + i) for i in range(5)]),
    "load curve": (
        study(space=RATE_SPACE, backend="slurm"),
        [synthetic_trial(i, qps=8 + i / 2) for i in range(9)],
    ),
    "mock engines": (
        study(backend="local", stack="dynamo_v1_mocker", engine="dynamo_mocker"),
        [synthetic_trial(0)],
    ),
    "mock engines on Slurm": (
        study(backend="slurm", stack="dynamo_v1_mocker", engine="dynamo_mocker"),
        [synthetic_trial(0)],
    ),
    "real engines here": (study(backend="local", stack="dynamo_v1"), [synthetic_trial(0)]),
    "no provenance": (study(), [synthetic_trial(i, provenance={}) for i in range(3)]),
    "nothing but figures": (study(), [synthetic_trial(i, breakdown=None, tpot_s=None) for i in range(3)]),
    "capacity searches": (study(), [searched_trial(i, prefill=14 - i) for i in range(3)]),
    "one capacity search, no rate held": (
        study(space={}),
        [searched_trial(probes=(probe_at(15.75, 99.0, full=False),), rates=(None, None, 0.0))],
    ),
    "2,500 trials": (study(n_trials=2500), mixed(2500)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_page_loads_nothing_and_its_data_parse(case: str, tmp_path: Path) -> None:
    record, outcomes = CASES[case]
    page = page_of(tmp_path / "reports" / record.name, record, outcomes)
    assert all(load.startswith("#") or load in ("ranking.csv", "ranking.json") for load in page.loads)
    assert len(page.trials) == len(outcomes)
    for name, text in page.scripts.items():
        if name.startswith("spec-"):
            assert json.loads(text)["data"]
    assert ("Simulated" in page.text) == (record.backend == "sim")
    assert ("No GPU ran." in page.text) == (record.backend == "sim" or record.stack == "dynamo_v1_mocker")
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()
    assert sorted(p.name for p in (tmp_path / "reports" / record.name).iterdir()) == [
        "index.html",
        "ranking.csv",
        "ranking.json",
    ]


def test_plotly_is_the_published_bundle_of_the_version_that_writes_the_specs() -> None:
    bundle = gzip.decompress(plotly_basic.COMPRESSED.read_bytes())
    assert hashlib.sha256(bundle).hexdigest() == plotly_basic.SHA256
    assert f"plotly.js (basic - minified) v{plotly_basic.VERSION}".encode() in bundle[:200]
    assert get_plotlyjs_version() == plotly_basic.VERSION
    assert b"MIT" in bundle[:200]
    assert (plotly_basic.COMPRESSED.parent / "LICENSE").read_text().startswith("MIT License")


def test_page_is_small_and_compiles_no_text_to_code(tmp_path: Path) -> None:
    text = write_report(tmp_path, study(), mixed(20)).read_text(encoding="utf-8")
    assert len(text) < 0.8e6
    assert plotly_basic.NOTICE in text
    assert "unsafe-eval" not in text


@pytest.mark.slow
def test_page_of_2000_trials_stays_below_two_megabytes(tmp_path: Path) -> None:
    page = write_report(tmp_path, study(n_trials=2000), mixed(2000))
    assert page.stat().st_size < 2e6


@pytest.mark.slow
def test_page_does_not_depend_on_the_order_of_outcomes(tmp_path: Path) -> None:
    outcomes = mixed(40)
    first = write_report(tmp_path / "a", study(), outcomes).read_bytes()
    assert write_report(tmp_path / "b", study(), outcomes[::-1]).read_bytes() == first


@pytest.mark.slow
def test_hostile_text_stays_text(tmp_path: Path) -> None:
    point = {"prefill_workers": 14, "note": NASTY}
    outcomes = [
        synthetic_trial(0, provenance={"params": point, "overrides": [f"x={NASTY}"], "split": NASTY}),
        unmeasured(1, "infeasible", NASTY, source=NASTY),
        unmeasured(2, "failed", NASTY),
    ]
    record = study(name=NASTY, question=NASTY, model=NASTY, command=(NASTY,), versions={NASTY: NASTY})
    plain = page_of(tmp_path / "plain", study(), [synthetic_trial(0), *mixed(3)[1:]])
    page = page_of(tmp_path / "nasty", record, outcomes)
    assert not any(
        "alert(" in text for name, text in page.scripts.items() if not name.startswith(("data", "spec-"))
    )
    assert len([n for n in page.scripts if n.startswith("script ")]) == len(
        [n for n in plain.scripts if n.startswith("script ")]
    )
    assert NASTY in page.text
    assert [trial["reason"] for trial in page.trials] == [None, NASTY, NASTY]
    assert shlex.split(page.table["overrides"][0]) == [f"x={NASTY}"]


def test_trial_proposed_twice_is_listed_once(tmp_path: Path) -> None:
    outcomes = [
        synthetic_trial(0),
        synthetic_trial(1, prefill=13),
        synthetic_trial(5, trial_id=f"{1:012x}", prefill=13),
    ]
    page = page_of(tmp_path, study(), outcomes)
    assert [trial["number"] for trial in page.trials] == [0, 1]
    assert len(json.loads((tmp_path / "ranking.json").read_text())) == 2


def test_table_lists_ranked_trials_first_and_others_with_reason(tmp_path: Path) -> None:
    outcomes = mixed(60)
    page = page_of(tmp_path, study(), outcomes)
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert [t["id"] for t in page.trials[: len(ranking)]] == [row["trial_id"] for row in ranking]
    rest = page.trials[len(ranking) :]
    assert {t["status"] for t in rest} == {"infeasible", "failed"}
    assert all(t["reason"] and t["rank"] is None for t in rest)


def test_row_gives_back_the_overrides_of_its_trial(tmp_path: Path) -> None:
    outcomes = mixed(30)
    page = page_of(tmp_path, study(), outcomes)
    recorded = {o.trial_id: o.provenance["overrides"] for o in outcomes}
    for trial in page.trials:
        line = " ".join(page.table["overrides"][i] for i in trial["overrides"])
        assert shlex.split(line) == recorded[trial["id"]]


@pytest.mark.slow
def test_page_shows_the_rates_of_capacity_searches(tmp_path: Path) -> None:
    page = page_of(tmp_path, study(), [searched_trial(0), searched_trial(1), synthetic_trial(2)])
    capacity = "16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS"
    cost = "5 probes lasting 2.4 full runs, 2,509 s of arrivals, 49.2 GPU-hours"
    assert f"Capacity search on one deployment: {capacity}. Cost: {cost}." in page.text
    assert "Verified rate" in page.text
    assert "16.3 missed, estimated capacity 16.2" in page.text
    assert "11 probes on 3 deployments" in page.text
    assert "#1 · trial 0 · 14P4D · 16.05 QPS verified" in page.text
    texts = [t["capacity"] and t["capacity"]["text"] for t in page.trials]
    assert texts == [f"{capacity}. Cost: {cost}."] * 2 + [None]
    assert page.trials[0]["capacity"]["probes"][2] == ["full run", "aborted", 16.6, 5200, 7.9, 0.059]


def test_one_deployment_needs_no_list_to_choose_from(tmp_path: Path) -> None:
    text = write_report(tmp_path, study(space={}), [searched_trial(0)]).read_text(encoding="utf-8")
    assert "<select" not in text
    assert 'id="spec-rates-0"' in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_report(tmp_path / "reports", study(), [])


def test_file_instead_of_the_folder_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(ConfigurationError, match="reports_dir="):
        write_report(tmp_path / "reports", study(), [synthetic_trial(0)])


@pytest.mark.slow
def test_older_page_is_replaced_completely(tmp_path: Path) -> None:
    write_report(tmp_path, study(), mixed(40))
    page = page_of(tmp_path, study(), [synthetic_trial(0)])
    assert len(page.trials) == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_page_without_figures_and_scripts_is_golden(tmp_path: Path, regenerate_golden: bool) -> None:
    outcomes = [
        synthetic_trial(0),
        synthetic_trial(1, prefill=13, qps=15.9, tps_gpu=139.23, ttft_p99_s=4.3142, tpot_p99_s=0.0593),
        synthetic_trial(2, prefill=12, qps=18.0, ttft_p99_s=31.0),
        synthetic_trial(3, valid=False, reason="completed 61 % of the queries; expected all"),
        unmeasured(4, "infeasible", "17 prefill workers leave no GPU for decode", prefill=17),
        unmeasured(5, "failed", "gb07 went down"),
    ]
    text = write_report(tmp_path, study(), outcomes).read_text(encoding="utf-8")
    table = json.dumps(Page(text).table, indent=0, ensure_ascii=False)
    text = re.sub(r"(<(script|style)[^>]*>).*?(</\2>)", r"\1\3", text, flags=re.DOTALL)
    text = f"{text}<!-- data\n{table}\n-->\n"
    if regenerate_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), "if meant: pytest --regenerate-golden"
