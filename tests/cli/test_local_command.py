"""Test cluster=local as a user meets it; with real Dynamo and its mock engines where they are installed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from support.fake_deployment import finish
from support.local_trials import SMALL, Start, alive, printed
from support.waiting import wait_for

from tune.analysis.measure import REQUESTS_FILE
from tune.records.requests import read_requests
from tune.records.scrapes import METRICS_FILE, read_metrics, total


@pytest.mark.slow
def test_engines_of_a_rack_are_refused_on_one_machine(start: Start, tmp_path: Path) -> None:
    process = start("cluster=local")
    assert "stack=dynamo_v1_mocker, or hardware.nodes=1" in printed(process)
    assert process.returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")  # two at once would refuse each other instead
def test_missing_dynamo_says_how_to_install_it(start: Start) -> None:
    process = start(*SMALL, "cluster.dynamo_venv=/nowhere")
    assert "make dynamo" in printed(process)
    assert process.returncode == 2


CUT = (
    *("load.dataset.inputs.max_tokens=400", "load.dataset.longest_prompt_tokens=400"),
    "decode.max_seq_len=512",
)
"""Answers of more than 112 tokens end at the engines' limit, and none may be asked for more."""


@pytest.mark.slow
def test_aggregated_workers_on_real_dynamo_are_measured(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    """Both workers register under the name of a decode worker and serve; none sends a cache."""
    load = [word for word in SMALL if not word.startswith("split.")]
    process = start(*load, "split=aggregated", "split.aggregated_workers=2", *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    assert "backend/tensorrt_llm 2 of 2, model listed" in said
    assert "every worker has worked" in said
    assert "2 of 2 aggregated workers" in said
    assert re.search(r"2A TP\d  10 queries/s  mock engines on this machine", said)
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    last = {scrape.process: scrape.samples for scrape in read_metrics(attempt / "probe-1" / METRICS_FILE)}
    taken = {name: total(samples, "dynamo_component_requests_total") for name, samples in last.items()}
    assert (taken["aggregated_w0"] or 0) + (taken["aggregated_w1"] or 0) >= 60
    outcome = json.loads((attempt.parents[1] / "outcome.json").read_text())
    assert outcome["probes"][0]["queries"] == 60
    assert outcome["ttft_s"]["p50"] > 0.02
    checks = {check["name"]: check["result"] for check in outcome["probes"][0]["checks"]}
    assert checks["kv_transfers"] == "not_counted"


@pytest.mark.slow
def test_trial_on_real_dynamo_is_measured(start: Start, dynamo: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*SMALL, *CUT, *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    assert "prefill 2 of 2, backend/tensorrt_llm 1 of 1, model listed" in said
    assert re.search(r"2P1D TP\d/TP\d  10 queries/s  mock engines on this machine", said)
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    last = {scrape.process: scrape.samples for scrape in read_metrics(attempt / "probe-1" / METRICS_FILE)}
    taken = {name: total(samples, "dynamo_component_requests_total") for name, samples in last.items()}
    assert (taken["prefill_w0"] or 0) + (taken["prefill_w1"] or 0) >= 60
    assert (taken["decode_w0"] or 0) >= 60
    outcome = json.loads((attempt.parents[1] / "outcome.json").read_text())
    assert outcome["probes"][0]["queries"] == 60
    assert outcome["ttft_s"]["p50"] > 0.02
    log = read_requests(attempt / "probe-1" / REQUESTS_FILE)
    assert set(log.error) == {""}
    assert log.output_tokens.max() == 112
    until_ns = log.scheduled_ns[-1]
    held_ns = np.minimum(log.done_ns, until_ns) - np.minimum(log.first_token_ns, until_ns)
    assert outcome["breakdown"]["decode_batch"] == pytest.approx(held_ns.sum() / until_ns, rel=0.25)
    assert 0 < outcome["breakdown"]["kv_used_frac"] < 1
    assert outcome["breakdown"]["prefill_utilisation"] is not None  # a few glances may all see it idle
    assert not list(attempt.glob("home*"))


@pytest.mark.slow
def test_users_of_real_dynamo_wait_for_their_answers(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    users = ("load.mode=concurrency", "load.concurrency=24", "load.target_qps=null", "slo.ttft_p99_s=null")
    short = ("load.dataset.inputs.mean_tokens=200.0", "load.dataset.outputs.mean_tokens=20.0")
    process = start(*SMALL, *users, *short, *dynamo)
    said = printed(process)
    assert process.returncode in {0, 1}, said
    assert re.search(r"2P1D TP\d/TP\d  24 users  mock engines on this machine", said)
    assert "LoadGen   none: a closed loop of 24 users" in said
    (attempt,) = (tmp_path / "runs").glob("users-local/*/raw/1")
    log = read_requests(attempt / "probe-1" / REQUESTS_FILE)
    assert len(log) == 459
    assert set(log.error) == {""}
    assert (log.scheduled_ns[24:] >= np.sort(log.done_ns)[:-24]).all()


CAPACITY = (
    *("load.mode=capacity", "load.resolution=0.2", "load.rate_range_qps=[8.0,30.0]", "load.target_qps=15.0"),
    *("load.min_queries=500", "load.dataset.inputs.mean_tokens=800.0"),
    *("load.dataset.outputs.mean_tokens=20.0", "slo.ttft_p99_s=0.6", "slo.tpot_p99_s=null"),
)
"""The prefill workers bound a rate that one machine can ask for: some 20 queries/s."""


@pytest.mark.slow
def test_capacity_is_found_on_one_real_deployment(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, *CAPACITY, *dynamo)
    said, _ = process.communicate(timeout=420)
    assert process.returncode == 0, said
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    assert said.count("started 4 processes") == 1, "one deployment"
    outcome = json.loads((attempt.parents[1] / "outcome.json").read_text())
    capacity = json.loads((attempt / "capacity.json").read_text())
    assert 8.0 <= capacity["verified_qps"] == outcome["capacity_qps"]["low"] <= 30.0
    short, *_ = outcome["probes"]
    assert (short["queries"], short["full"]) == (459, False)
    (best,) = [one for one in outcome["probes"] if one["full"] and one["feasible"]][-1:]
    assert best["queries"] == 500
    phases = outcome["attempts"][0]["phases"]
    assert all(phases[name] > 0 for name in ("bring_up_s", "warm_up_s", "probes_s", "search_s"))
    assert not alive(tmp_path)


COMMANDS = {
    "nats": "nats-server",
    "etcd": "/etcd ",
    "frontend": "dynamo.frontend",
    "prefill_w": "--disaggregation-mode prefill",
    "decode_w0": "--disaggregation-mode decode",
    "load client": "tune.client",
}


def asks(folder: Path) -> bool:
    """Return whether the load client has begun to ask."""
    logs = (folder / "runs").glob("single-local/*/raw/1/logs/*client.out")
    return any("queries over" in log.read_text() for log in logs)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_process_that_dies_during_a_run_fails_the_trial(
    name: str, start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, *dynamo, "study.retries=0")
    wait_for(lambda: asks(tmp_path))
    victim = next(p for p, command in alive(tmp_path).items() if COMMANDS[name] in command)
    os.kill(victim, signal.SIGKILL)
    said = printed(process)
    assert process.returncode == 3, said
    assert f"{name}" in said
    assert "ended by SIGKILL" in said
    wait_for(lambda: not alive(tmp_path))


@pytest.mark.slow
def test_study_on_real_dynamo_ends_with_a_report(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    """Two splits of three nodes; 60 queries cannot show that a p99 holds, so the answer is no."""
    own = tmp_path / "own" / "sweep"
    own.mkdir(parents=True)
    (own / "splits.yaml").write_text(
        "# @package _global_\n"
        "sweep:\n"
        "  question: Which split of three nodes?\n"
        "  n_trials: 2\n"
        "  fill_decode: true\n"
        "  space:\n"
        "    prefill_workers: {kind: int, path: split.prefill_workers, low: 1, high: 2}\n"
    )
    words = (
        "--config-dir",
        str(own.parent),
        "+sweep=splits",
        "search=grid",
        "study.baseline=false",
        "load.mode=fixed",
    )
    process = start(*words, *SMALL, *dynamo)
    said = printed(process)
    assert process.returncode == 1, said
    report = tmp_path / "reports" / "splits-local"
    assert "Which split of three nodes?" in (report / "index.html").read_text()
    with (report / "ranking.csv").open(newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"2P1D", "1P2D"}
    outcomes = [json.loads(path.read_text()) for path in tmp_path.glob("runs/splits-local/*/outcome.json")]
    assert [outcome["status"] for outcome in outcomes] == ["measured"] * 2
    assert all(outcome["output_tps"] > 0 for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT], 130), ([signal.SIGINT] * 2, 130), ([signal.SIGKILL], -signal.SIGKILL)],
)
def test_interrupted_or_killed_trial_leaves_a_record_and_no_process(
    signals: list[signal.Signals], code: int, start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, "load.min_duration_s=120.0", *dynamo)
    wait_for(lambda: list((tmp_path / "runs").glob("single-local/*/raw/1/probe-1")))
    for number in signals:
        process.send_signal(number)
    assert finish(process) == code
    wait_for(lambda: not alive(tmp_path))
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    assert "interrupted after" in json.loads((attempt / "attempt.json").read_text())["error"]
