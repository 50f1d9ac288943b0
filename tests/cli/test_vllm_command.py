"""Run stack=dynamo_vllm on this machine: real Dynamo, with a stand-in for `dynamo.vllm` and no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.local_trials import Start, alive, printed
from support.vllm_trials import TWO_GPUS, install_vllm

from tune.records.scrapes import METRICS_FILE, read_metrics, total

SHORT = (
    *("load.target_qps=10", "load.min_duration_s=4", "load.min_queries=40"),
    *("load.concatenate_permutation=false", "cluster.deadlines.stop_s=5"),
)


@pytest.fixture
def on_two_gpus(
    dynamo: tuple[str, ...], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    """Return overrides that lead to the stand-in, on a machine whose driver shows two GPUs."""
    engine, driver = install_vllm(tmp_path, root / ".venv-dynamo")
    monkeypatch.setenv("PATH", str(driver), prepend=":")
    return (*TWO_GPUS, *SHORT, *dynamo, engine)


@pytest.mark.slow
def test_a_trial_of_vllm_is_measured(start: Start, on_two_gpus: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*on_two_gpus)
    said = printed(process)
    assert process.returncode == 0, said
    assert "prefill 1 of 1, backend 1 of 1, model listed" in said
    assert "1 of 1 pairs of prefill and decode worker" in said
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    logs = {
        role: next((attempt / "logs").glob(f"*{role}_w0.out")).read_text() for role in ("prefill", "decode")
    }
    assert "GPUs 0" in logs["prefill"]
    assert "GPUs 1" in logs["decode"]
    last = {scrape.process: scrape.samples for scrape in read_metrics(attempt / "probe-1" / METRICS_FILE)}
    assert (total(last["prefill_w0"], "dynamo_component_requests_total") or 0) >= 40
    outcome = json.loads((attempt.parents[1] / "outcome.json").read_text())
    assert outcome["probes"][0]["queries"] == 40
    assert outcome["breakdown"]["kv_used_frac"] > 0
    assert not alive(tmp_path)


@pytest.mark.slow
def test_the_rate_of_what_nothing_forecasts_is_found_on_one_deployment(
    start: Start, on_two_gpus: tuple[str, ...], tmp_path: Path
) -> None:
    search = (
        "load.mode=capacity",
        "load.rate_range_qps=[20,20]",
        "load.min_queries=460",
        "load.target_qps=20",
    )
    process = start(*on_two_gpus, *search)
    said = printed(process)
    assert process.returncode == 0, said
    assert "the rate is found by bisection" in said
    assert "capacity  20 QPS verified" in said


@pytest.mark.slow
def test_an_argument_that_vllm_refuses_is_infeasible(start: Start, on_two_gpus: tuple[str, ...]) -> None:
    process = start(*on_two_gpus, "+decode.extra.max_num_batchd_tokens=5")
    said = printed(process)
    assert process.returncode == 1, said
    assert "unrecognized arguments: --max-num-batchd-tokens 5" in said


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
def test_too_few_gpus_are_said_before_anything_starts(
    start: Start, on_two_gpus: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "driver" / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H200'\n")
    process = start(*on_two_gpus)
    assert "1 NVIDIA GPU on this machine" in printed(process)
    assert process.returncode == 2
    assert not list(tmp_path.glob("runs/**/logs"))
