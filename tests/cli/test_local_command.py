"""cluster=local as a user meets it; with real Dynamo and its mock engines where make dynamo put them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stand_ins import MARK, finish, free_ports, processes_with, wait_for

from tune.results.metrics import METRICS_FILE, read_metrics, total

Start = Callable[..., "subprocess.Popen[str]"]

SMALL = (
    *("cluster=local", "stack=dynamo_v1_mocker", "hardware.nodes=3", "split.prefill_workers=2"),
    *("split.decode_workers=1", "load.target_qps=10.0", "load.min_duration_s=6.0", "load.min_queries=60"),
    *(
        "load.concatenate_permutation=false",
        "load.dataset.inputs.kind=fixed",
        "cluster.deadlines.quiet_s=30.0",
    ),
    *("load.dataset.inputs.mean_tokens=400.0", "load.dataset.inputs.sd_tokens=0.0"),
    *("load.dataset.outputs.mean_tokens=100.0", "load.dataset.outputs.cap_frac=0.0"),
)


@pytest.fixture
def dynamo(root: Path) -> tuple[str, ...]:
    """Overrides that lead to the installed Dynamo and give its servers free ports."""
    venv = root / ".venv-dynamo"
    if not (venv / "bin" / "etcd").exists():
        reason = f"no Dynamo in {venv}: make dynamo installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    frontend, client, peer, nats, system = free_ports(5)
    return (
        *(f"cluster.dynamo_venv={venv}", f"cluster.model_path={venv / 'model'}"),
        *(f"stack.frontend_port={frontend}", f"stack.etcd_client_port={client}"),
        *(
            f"stack.etcd_peer_port={peer}",
            f"stack.nats_port={nats}",
            f"stack.system_port={system % 20000 + 10000}",
        ),
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`python -m tune` in a folder of its own; whatever it started is dead afterwards."""
    with ExitStack() as stack:

        def begin(*words: str) -> subprocess.Popen[str]:
            return stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tune", *words],
                    cwd=tmp_path,
                    env=os.environ | {MARK: str(tmp_path)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

        yield begin
        left = alive(tmp_path)
        for process in left:
            os.kill(process, signal.SIGKILL)
        assert not left


def alive(folder: Path) -> dict[int, str]:
    return processes_with(f"{MARK}={folder}")


def printed(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=120)[0]


def test_real_engines_of_a_rack_are_refused_on_one_machine(start: Start, tmp_path: Path) -> None:
    process = start("cluster=local")
    assert "stack=dynamo_v1_mocker, or hardware.nodes=1" in printed(process)
    assert process.returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_dynamo_it_says_how_to_install_it(start: Start) -> None:
    process = start(*SMALL, "cluster.dynamo_venv=/nowhere")
    assert "make dynamo" in printed(process)
    assert process.returncode == 2


@pytest.mark.slow
def test_a_trial_on_real_dynamo_is_measured(start: Start, dynamo: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*SMALL, *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    assert "prefill 2 of 2, backend/tensorrt_llm 1 of 1, model listed" in said
    assert "2P1D  10 queries/s  this machine" in said
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    last = {scrape.process: scrape.samples for scrape in read_metrics(attempt / "probe-1" / METRICS_FILE)}
    taken = {name: total(samples, "dynamo_component_requests_total") for name, samples in last.items()}
    assert (taken["prefill_w0"] or 0) + (taken["prefill_w1"] or 0) >= 60
    assert (taken["decode_w0"] or 0) >= 60
    outcome = json.loads((attempt.parents[1] / "outcome.json").read_text())
    assert outcome["probes"][0]["queries"] == 60
    assert outcome["ttft_s"]["p50"] > 0.02


@pytest.mark.slow
def test_a_mock_engine_that_dies_fails_the_trial(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, *dynamo)
    wait_for(lambda: list((tmp_path / "runs").glob("single-local/*/raw/1/probe-1/mlperf_log_detail.txt")))
    (engine,) = (p for p, command in alive(tmp_path).items() if "--disaggregation-mode decode" in command)
    os.kill(engine, signal.SIGKILL)
    said = printed(process)
    assert process.returncode == 3
    assert "decode_w0 ended by SIGKILL before the client did" in said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_or_killed_it_leaves_no_process_and_a_record(
    number: signal.Signals, code: int, start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, *dynamo)
    wait_for(lambda: list((tmp_path / "runs").glob("single-local/*/raw/1/probe-1")))
    process.send_signal(number)
    assert finish(process) == code
    wait_for(lambda: not alive(tmp_path))
    (attempt,) = (tmp_path / "runs").glob("single-local/*/raw/1")
    assert "interrupted after" in json.loads((attempt / "attempt.json").read_text())["error"]
