"""Test cluster=slurm end to end: real Slurm, real Dynamo with mock engines, real LoadGen."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.local_trials import Start, printed
from support.report_page import Page
from support.slurm_conf import COUNT, NODES
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, await_asking, job_ids, kill_on, outcomes, record
from support.slurm_trials import SPLIT, small, sweep

from tune.records.scrapes import METRICS_FILE, read_metrics, total

pytestmark = pytest.mark.slow


def test_two_parallel_splits_end_with_a_report(
    start: Start, slurm: SlurmRack, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    """Forty queries cannot show that a p99 holds, so the answer is no."""
    process = start(*sweep(tmp_path, SPLIT), *slurm.words, *small(), *dynamo, "study.parallel=2")
    await_asking(tmp_path)
    assert len(slurm.jobs()) == 2
    said = printed(process)
    assert process.returncode == 1, said
    page = Page((tmp_path / "reports" / "mine-slurm" / "index.html").read_text())
    assert {trial["kind"].split()[0] for trial in page.trials} == {"2P1D", "1P2D"}
    found = outcomes(tmp_path)
    assert [outcome["status"] for outcome in found] == ["measured"] * 2
    assert all(outcome["output_tps"] > 0 for outcome in found)
    hosts = [(attempt / "nodes").read_text().split() for attempt in attempts(tmp_path)]
    assert sorted(host for those in hosts for host in those) == list(NODES[:6])
    assert len(job_ids(tmp_path)) == 2


def test_one_trial_runs_on_all_nodes(
    start: Start, slurm: SlurmRack, dynamo: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Besides, this machine's folder for temporary files is no node's, and of the nodes' none is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    process = start(*slurm.words, *small(COUNT, 14, 4, queries=80, seconds=8), *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    (attempt,) = attempts(tmp_path)
    assert (attempt / "nodes").read_text().split() == list(NODES)
    logs = {path.name for path in (attempt / "logs").iterdir()}
    assert {f"{NODES[n]}_prefill_w{n}.out" for n in range(14)} <= logs
    assert {f"{NODES[14 + n]}_decode_w{n}.out" for n in range(4)} <= logs
    last = {scrape.process: scrape.samples for scrape in read_metrics(attempt / "probe-1" / METRICS_FILE)}
    taken = {name: total(samples, "dynamo_component_requests_total") or 0 for name, samples in last.items()}
    assert sum(count for name, count in taken.items() if name.startswith("prefill_w")) >= 80
    assert outcomes(tmp_path)[0]["status"] == "measured"
    slurm.wait(slurm.all_ended, 15, "end of the job")
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(tmp_path.glob("runs/*/jobs/*/scratch*"))


def test_killed_engine_fails_the_trial(
    start: Start, slurm: SlurmRack, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*slurm.words, *small(queries=300, seconds=60), *dynamo, "study.retries=0")
    await_asking(tmp_path)
    kill_on(slurm, "g03", "--disaggregation-mode decode")
    said = printed(process)
    assert process.returncode == 3, said
    (attempt,) = attempts(tmp_path)
    assert "decode_w0" in (record(attempt).error or "")
