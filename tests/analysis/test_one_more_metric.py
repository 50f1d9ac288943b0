"""Test that a row added to the table of metrics reaches what shows metrics, in all processes of a study."""

import csv
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from support.report_page import Page

ROOT = Path(__file__).parents[2]
SHORT = ("load.min_duration_s=100.0", "load.concatenate_permutation=false")

STATISTIC = """    Statistic("p98", 0.98, "98th percentile", _QUANTILE),
"""
LATENCY = """    LatencyMetric(
        name="generation",
        label="generation",
        title="time of generation",
        shown_unit="s",
        formula="last token - first token, of answers with two tokens or more",
        source="here",
        per_request_ns=lambda log: log.done_ns - log.first_token_ns,
        spent_in="decode",
        min_tokens=2,
    ),
"""
RATE = """    RunRate(
        name="answers_per_gpu_qps",
        label="answers",
        title="answers/s per GPU",
        unit="queries/s/GPU",
        formula="completed_qps / all allocated GPUs",
        source="here",
        of_run=lambda run: run.completed_qps and run.completed_qps / run.gpus,
    ),
"""

_IMPORT_WITH_ROW = """
import importlib.util, sys
from pathlib import Path

found = importlib.util.find_spec("tune.spec.metrics")
head, table, rest = Path(found.origin).read_text().partition({table!r})
assert table
rows, end, rest = rest.partition("\\n)\\n")
metrics = importlib.util.module_from_spec(found)
sys.modules[found.name] = metrics
exec(compile(head + table + rows + "\\n" + {row!r} + ")\\n" + rest, found.origin, "exec"), vars(metrics))
"""
_RUN = """
from tune.cli.metrics_reference import render_metrics
from tune.__main__ import main
print(render_metrics())
main()
"""


class Command:
    """Run `tune` with one more row in a table of the module of metrics, in it and in all that it starts."""

    def __init__(self, folder: Path, table: str, row: str) -> None:
        (folder / "sitecustomize.py").write_text(_IMPORT_WITH_ROW.format(table=f"\n{table} = (\n", row=row))
        self.runs, self.reports = folder / "runs", folder / "reports"
        search = os.pathsep.join([str(folder), str(ROOT)])
        self._environment = dict(os.environ) | {"PYTHONPATH": search}

    def __call__(self, *words: str) -> str:
        """Return the page of metrics and what the command prints; it has to succeed."""
        folders = (f"runs_dir={self.runs}", f"reports_dir={self.reports}")
        run = subprocess.run(
            [sys.executable, "-c", _RUN, *words, *folders],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def outcomes(self) -> list[dict]:
        """Return every outcome.json."""
        return [json.loads(path.read_text()) for path in sorted(self.runs.rglob("outcome.json"))]

    def shuffles(self) -> list[dict]:
        """Return every shuffle on record."""
        files = [json.loads(path.read_text()) for path in self.runs.rglob("shuffles.json")]
        return [shuffle for file in files for shuffle in file["shuffles"]]


def check_report(folder: Path, label: str) -> str:
    """Check that table, curve, trade-off and tile of a page show the limit `label`; return the page."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    limits = [limit["title"] for limit in Page(page).table["limits"]]
    assert limits == ["p99 TTFT", "p99 TPOT", label]
    curves = re.findall(r'id="spec-(?:rates-0|load)">(.*?)</script>', page)
    layouts = [json.loads(curve)["layout"] for curve in curves]
    assert f"{label}, s" in [axis["title"]["text"] for axes in layouts for axis in vertical(axes)]
    assert f"What does throughput cost in {label}?" in page
    assert f'<p class="label">{label}</p>' in page
    return page


def vertical(layout: dict) -> list[dict]:
    """Return the vertical axes of a figure."""
    return [axis for name, axis in layout.items() if name.startswith("yaxis")]


def rows_of(report: Path) -> tuple[list[dict], list[dict]]:
    """Return the rows of ranking.json and of ranking.csv."""
    with (report / "ranking.csv").open(newline="") as file:
        return json.loads((report / "ranking.json").read_text()), list(csv.DictReader(file))


@pytest.mark.slow
def test_one_more_statistic_needs_no_other_line(tmp_path: Path) -> None:
    """A statistic that no record has so far reaches settings, verdict, records, page and reference."""
    tune = Command(tmp_path, "STATISTICS", STATISTIC)
    text = tune("slo.ttft_p98_s=3.2", "load.mode=capacity", *SHORT)
    assert "limit     p98 TTFT" in text
    assert "| `slo.ttft_p98_s` | p98 TTFT, s | tune |" in text
    assert text.count("p98 TTFT ") > text.count("probe ")
    assert tune.shuffles()
    assert all(shuffle["ttft_p98_s"] > 0 for shuffle in tune.shuffles())
    tune("action=report", "study.name=single-sim")
    report = tmp_path / "reports" / "single-sim"
    (row,), (line,) = rows_of(report)
    assert row["ttft_p98_s"] > 0
    assert row["ttft_p98_shuffles_sd_s"] > 0
    assert float(line["ttft_p98_s"]) == row["ttft_p98_s"]
    assert float(line["tpot_p98_s"]) > 0
    assert "<dt>p98</dt><dd>98th percentile" in check_report(report, "p98 TTFT")


@pytest.mark.slow
def test_one_more_latency_needs_no_other_line(tmp_path: Path) -> None:
    """A study with a limit on it: records, verdict, search, terminal, page, tables, Optuna and reference."""
    tune = Command(tmp_path, "LATENCIES", LATENCY)
    rates = (
        "sweep.space.target_qps.low=12",
        "sweep.space.target_qps.high=20",
        "sweep.space.target_qps.step=8",
    )
    study = ("+sweep=target_qps", "study.n_trials=3", "study.name=s", "slo.generation_p90_s=38")
    text = tune(*study, *rates, *SHORT)
    assert "| `generation_s` | time of generation | s | lower | last token - first token" in text
    assert "| `slo.generation_p90_s` | p90 generation, s | tune |" in text
    outcomes = tune.outcomes()
    assert len(outcomes) == 3
    for outcome in outcomes:
        (probe,) = outcome["probes"]
        assert list(outcome).index("generation_s") == list(outcome).index("latency_s") + 1
        assert probe["generation_s"] == outcome["generation_s"]
        log = outcome["constraints"]["generation_p90"]
        assert outcome["generation_s"]["p90"] == pytest.approx(38 * 2.718281828459045**log)
    late = [outcome for outcome in outcomes if "generation limit" in (outcome["reason"] or "")]
    assert 0 < len(late) < 3
    assert not any(outcome["feasible"] for outcome in late)
    assert all(shuffle["generation_p90_s"] > 0 for shuffle in tune.shuffles())
    report = tmp_path / "reports" / "s"
    rows, lines = rows_of(report)
    figures_s = sorted(outcome["generation_s"]["p90"] for outcome in outcomes)
    assert sorted(row["generation_p90_s"] for row in rows) == figures_s
    assert all(float(line["generation_p99_s"]) > float(line["generation_p90_s"]) for line in lines)
    page = check_report(report, "p90 generation")
    assert "generation_s" in [latency["field"] for latency in Page(page).table["latencies"]]
    tune("action=export", "export.to=optuna", "study.name=s")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(report / "optuna.log")))
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert sorted(trial.user_attrs["generation_p90_s"] for trial in trials) == figures_s
    assert all("generation_p90" in trial.constraints for trial in trials)


@pytest.mark.slow
def test_one_more_figure_of_throughput_needs_no_other_line(tmp_path: Path) -> None:
    tune = Command(tmp_path, "RATES", RATE)
    text = tune(*SHORT)
    assert "| `answers_per_gpu_qps` | answers/s per GPU | queries/s/GPU | higher | completed_qps /" in text
    (outcome,) = tune.outcomes()
    assert outcome["answers_per_gpu_qps"] == outcome["completed_qps"] / outcome["gpus"]
    assert outcome["probes"][0]["answers_per_gpu_qps"] == outcome["answers_per_gpu_qps"]
    tune("action=report", "study.name=single-sim")
    _, (line,) = rows_of(tune.reports / "single-sim")
    assert float(line["answers_per_gpu_qps"]) == outcome["answers_per_gpu_qps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "row"), [("STATISTICS", STATISTIC), ("LATENCIES", LATENCY), ("RATES", RATE)]
)
def test_study_from_before_the_row_is_read(tmp_path: Path, table: str, row: str) -> None:
    tune = Command(tmp_path, table, row)
    with tarfile.open(ROOT / "tests" / "compat" / "0.2.0.tar.xz") as records:
        records.extractall(tune.runs, filter="data")
    tune("action=report", "study.name=fixed")
    rows, lines = rows_of(tune.reports / "fixed")
    assert len(rows) == len(lines) > 1
    added = {"STATISTICS": "ttft_p98_s", "LATENCIES": "generation_p99_s", "RATES": "answers_per_gpu_qps"}
    assert {line[added[table]] for line in lines} == {""}
