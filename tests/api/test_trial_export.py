"""Test action=export of one trial of a recorded study, as a user asks for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from llmd_benchmark_report import BenchmarkReportV02, load_benchmark_report

import tune
from tune.cli.export_command import export
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.recipes.kept_settings import read_kept
from tune.records.folders import StudyFolder

pytestmark = pytest.mark.slow  # simulates a study

IMAGE = "cluster.container_image=nvcr.io/example/runtime:1.6.1"


@pytest.fixture
def exporting(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the recorded study, for exports of its own."""
    (tmp_path / "runs").mkdir()
    shutil.copytree(recorded / "runs" / "short", tmp_path / "runs" / "short")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> None:
    export(compose_overrides(["action=export", "study.name=short", *words]))


@pytest.fixture
def aggregated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with a study of one trial of aggregated workers."""
    monkeypatch.chdir(tmp_path)
    load = ("load.min_queries=1000", "load.min_duration_s=20.0", "load.concatenate_permutation=false")
    words = ["split=aggregated", "study.name=short", "load.target_qps=12", *load]
    subprocess.run([sys.executable, "-m", "tune", *words], check=True, capture_output=True)
    return tmp_path


def test_a_report_of_aggregated_workers_has_one_pool(aggregated: Path) -> None:
    run("export.to=benchmark-report")
    (file,) = (aggregated / "reports" / "short").glob("*.benchmark-report.yaml")
    report = load_benchmark_report(yaml.safe_load(file.read_text()))
    pools = [
        part.standardized.role
        for part in report.scenario.stack
        if part.standardized.kind == "inference_engine"
    ]
    assert [str(getattr(role, "value", role)) for role in pools] == ["replica"]


def test_aggregated_workers_go_out_in_every_format(
    aggregated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("export.to=sbatch", "export.file=job")
    text = (aggregated / "job" / "job.sbatch").read_text()
    assert "aggregated_w17" in text
    assert "--disaggregation-mode" not in text
    for target in ("srt-slurm", "dgd"):
        run(f"export.to={target}", f"export.file={target}.yaml", IMAGE)
    said = capsys.readouterr().out
    assert said.count("python -m tune import recipe=") == 3
    assert "gives another trial" not in said


def test_a_trial_in_a_closed_loop_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has users in the place of a rate, in the job, in srt-slurm's client and in the report."""
    monkeypatch.chdir(tmp_path)
    lengths = ("load=fixed", "load.dataset.inputs.range_rule=inferencex", "load.dataset.inputs.range_ratio=1")
    loop = ("load.mode=concurrency", "load.concurrency=64", "load.target_qps=null", "slo.ttft_p99_s=null")
    words = ["study.name=short", *lengths, *loop]
    subprocess.run([sys.executable, "-m", "tune", *words], check=True, capture_output=True)
    run("export.to=sbatch", "export.file=job")
    client = Path("job/client.sh").read_text()
    assert "--concurrency 64 --request-count 640 " in client
    assert "--request-rate" not in client
    run("export.to=srt-slurm", "export.file=recipe.yaml", IMAGE)
    benchmark = yaml.safe_load(Path("recipe.yaml").read_text())["benchmark"]
    assert (benchmark["req_rate"], benchmark["concurrencies"], benchmark["num_prompts_mult"]) == (
        "inf",
        [64],
        10,
    )
    assert "gives another trial" not in capsys.readouterr().out
    run("export.to=benchmark-report", "export.file=report.yaml")
    report = load_benchmark_report(yaml.safe_load(Path("report.yaml").read_text()))
    load = report.scenario.load.standardized
    assert (load.concurrency, load.rate_qps) == (64, None)


def test_a_report_of_llm_d_is_read_by_its_own_package(exporting: Path) -> None:
    best = tune.load_study(exporting / "runs" / "short").best()
    assert best
    run("export.to=benchmark-report")
    (file,) = (exporting / "reports" / "short").iterdir()
    assert file.name == f"{best.trial_id}.benchmark-report.yaml"
    report = load_benchmark_report(yaml.safe_load(file.read_text()))
    assert isinstance(report, BenchmarkReportV02)
    assert report.version == "0.2"
    assert report.scenario
    assert report.scenario.stack
    roles = {part.metadata.label: part.standardized for part in report.scenario.stack}
    assert roles["prefill"].replicas == best.spec.split.prefill_workers
    assert roles["decode"].accelerator.count == best.spec.decode.gpus
    assert report.results.request_performance
    figures, outcome = report.results.request_performance.aggregate, best.outcome
    assert figures
    assert outcome.ttft_s
    assert outcome.tpot_s
    assert figures.latency.time_to_first_token.p99 == outcome.ttft_s.p99
    assert figures.latency.time_per_output_token.p99p9 == outcome.tpot_s.p99_9
    assert figures.throughput.output_token_rate.mean == outcome.output_tps
    assert (figures.requests.total, figures.requests.failures) == (outcome.probes[0].queries, 0)
    assert 0 < figures.requests.output_length.p50 <= figures.requests.output_length.max <= 2000
    assert "simulat" in str(report.run.description)


def test_versions_in_a_report_are_those_that_the_nodes_found(exporting: Path) -> None:
    def reported() -> dict[str, str]:
        run("export.to=benchmark-report", "export.file=report.yaml")
        parts = yaml.safe_load(Path("report.yaml").read_text())["scenario"]["stack"]
        return {part["metadata"]["label"]: part["standardized"]["tool_version"] for part in parts}

    best = tune.load_study(exporting / "runs" / "short").best()
    assert best
    of_the_stack = "TensorRT-LLM 1.0.0rc0 to rc3"
    assert reported() == {"prefill": of_the_stack, "decode": of_the_stack, "frontend": "dynamo_v0"}
    versions = {"ai-dynamo": "1.3.0", "tensorrt_llm": "1.3.0rc5"}
    evidence = {"nodes": ["g01"], "versions": versions, "hardware": {}, "missing": {}}
    trial = StudyFolder(exporting / "runs" / "short").trial(best.trial_id)
    trial.write_outcome(
        best.outcome.model_copy(update={"provenance": best.outcome.provenance | {"evidence": evidence}})
    )
    assert reported() == {"prefill": "1.3.0rc5", "decode": "1.3.0rc5", "frontend": "1.3.0"}


def test_any_trial_goes_out_and_its_files_are_replaced(
    exporting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = tune.load_study(exporting / "runs" / "short").trials
    best = tune.load_study(exporting / "runs" / "short").best()
    assert best
    other = next(trial for trial in trials if trial.trial_id != best.trial_id)
    for words in (("trial=best",), (f"trial={other.number}",), (f"trial={other.trial_id}",)):
        run("export.to=srt-slurm", IMAGE, *words)
        said = capsys.readouterr().out
        assert "Kept in its comments, as srt-slurm has no place for them: " in said
        assert "gives another trial" not in said
    folder = exporting / "reports" / "short"
    kept = [read_kept(folder / f"{trial.trial_id}.srt-slurm.yaml") for trial in (best, other)]
    assert [found.trial_id for found in kept if found] == [best.trial_id, other.trial_id]
    run("export.to=sbatch", "export.file=mine")
    run("export.to=sbatch", "export.file=mine")
    assert {path.name for path in (exporting / "mine").iterdir()} == {
        "job.sbatch", "client.sh", "ready.py", "rank.sh", "prefill.yaml", "decode.yaml",
    }  # fmt: skip


def test_what_cannot_be_exported_is_named(exporting: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"needs export\.to=FORMAT: optuna"):
        run()
    with pytest.raises(ConfigurationError, match=r"trial=77: no such trial"):
        run("export.to=dgd", "trial=77", IMAGE)
    (trial,) = (path.parent for path in sorted(Path("runs").glob("short/*/spec.json"))[:1])
    shutil.copytree(trial.parent, "runs/other")
    with pytest.raises(ConfigurationError, match=r"trial=\.\./other/.*: no such trial"):
        run("export.to=dgd", f"trial=../other/{trial.name}", IMAGE)
    Path("taken").mkdir()
    with pytest.raises(ConfigurationError, match=r"export\.file: taken exists and was not written by"):
        run("export.to=sbatch", "export.file=taken")
    assert not list(Path("taken").iterdir())
    Path("notes.yaml").write_text("mine: true\n")
    with pytest.raises(ConfigurationError, match=r"notes\.yaml exists and was not written by"):
        run("export.to=benchmark-report", "export.file=notes.yaml")
    assert Path("notes.yaml").read_text() == "mine: true\n"
