"""Test status, logs, cancel and preflight of a study's jobs, with Slurm's programs replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fake_slurm import FakeSlurm
from support.slurm_nodes import Nodes
from support.slurm_study import CALIBRATION

from tune.backends.slurm.allocation import Allocation
from tune.orchestrator.slurm.work_queue import mark_started
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import StudyFolder, write_attempt

Tune = Callable[..., "subprocess.CompletedProcess[str]"]
ONE = ("study.name=one",)
CLUSTER = ("cluster=slurm", "cluster.account=null", "cluster.model_path=/models/405b")
RUN = (*ONE, *CLUSTER, "cluster.partition=rack", "study.once=true")


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


@pytest.fixture
def tune(tmp_path: Path, slurm: FakeSlurm) -> Tune:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune", *words],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{slurm.path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.slow
def test_job_is_listed_followed_and_cancelled(tune: Tune, slurm: FakeSlurm) -> None:
    submitted = tune(*RUN)
    assert submitted.returncode == 3, submitted.stderr
    assert "1 of this study's trials wait or run" in submitted.stderr
    (attempt,) = Allocation(slurm.folder("101")).attempts()
    trial = attempt.parents[1].name

    assert f"runs      job 101  PENDING (Resources)  trial {trial}" in tune("action=status", *ONE).stdout
    one = tune("action=status", *ONE, "trial=0")
    assert "not recorded yet" in one.stdout
    assert "job 101" in one.stdout

    slurm.set("101", state="RUNNING", nodes="g[01-18]")
    mark_started(attempt, ["g01"])
    (attempt / "logs").mkdir()
    (attempt / "logs" / "g01_prefill_w0.out").write_text("loading weights\nready\n")
    cancelled = tune("action=cancel", *ONE, f"trial={trial}")
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"cancelled job 101  RUNNING on g[01-18]  trial {trial}" in cancelled.stdout
    assert slurm.jobs["101"]["state"] == "CANCELLED"
    assert "No job of study one waits or runs." in tune("action=cancel", *ONE).stdout

    logs = tune("action=logs", *ONE, f"trial={trial}")
    assert logs.returncode == 0, logs.stderr
    assert logs.stdout == "==> g01_prefill_w0.out <==\nloading weights\nready\n"

    stamp = "2026-01-01T00:00:00+00:00"
    record = AttemptRecord(
        started_at=stamp, ended_at=stamp, occupied_s=36.0, error="stopped: scancel", cause="infrastructure"
    )
    write_attempt(attempt, record)
    assert "job" not in tune("action=status", *ONE).stdout.partition("best")[2]


@pytest.mark.slow
def test_silent_slurm_leaves_status_readable_and_cancels_nothing(tune: Tune, slurm: FakeSlurm) -> None:
    tune(*RUN)
    for program in ("squeue", "scontrol"):
        slurm.fail(program, "Unable to contact slurm controller")
    assert "runs      job 101  UNKNOWN" in tune("action=status", *ONE).stdout
    cancelled = tune("action=cancel", *ONE)
    assert cancelled.returncode == 3
    assert "nothing was cancelled" in cancelled.stderr
    assert slurm.jobs["101"]["state"] == "PENDING"


@pytest.mark.slow
def test_secret_of_a_job_reaches_no_file(
    tune: Tune, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither plan, job, record nor report holds its value; the record says that it was set."""
    shell = {"HF_TOKEN": "hf_5ecret", "AWS_SECRET_ACCESS_KEY": "aws_5ecret", "REGISTRY_AUTH": "nvcr_5ecret"}
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    named = (
        *("+prefill.env={HF_TOKEN: null, UCX_TLS: rc}", "+stack.env.AWS_SECRET_ACCESS_KEY=null"),
        *("+cluster.srun_env={REGISTRY_AUTH: null, ENROOT_ALLOW_DEV: 'yes'}", "load.min_duration_s=60.0"),
        "cluster.command_prefix.decode=[nice]",
    )
    short = (*named, "load.concatenate_permutation=false")
    assert tune(*RUN, *short).returncode == 3
    Nodes(slurm, CALIBRATION, image_sha256="5ha" * 20).work()
    collected = tune(*RUN, *short)
    assert collected.returncode == 0, collected.stderr
    (outcome,) = StudyFolder(tmp_path / "runs" / "one").outcomes()
    assert outcome.provenance["image_sha256"] == "5ha" * 20, "as the head node found it"
    assert outcome.provenance["environment"] == {
        "prefill.env": {"HF_TOKEN": "set", "UCX_TLS": "rc"},
        "stack.env": {"AWS_SECRET_ACCESS_KEY": "set"},
        "cluster.srun_env": {"ENROOT_ALLOW_DEV": "yes", "REGISTRY_AUTH": "set"},
    }
    assert outcome.provenance["launch_options"] == {"command_prefix.decode": "nice"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"HF_TOKEN" in path.read_bytes() for path in files), "the name does"
    assert [path for path in files if b"_5ecret" in path.read_bytes()] == []


@pytest.mark.slow
def test_cancel_and_logs_are_refused_without_jobs_or_processes(tune: Tune) -> None:
    assert tune(*ONE, "load.min_duration_s=60.0", "load.concatenate_permutation=false").returncode == 0
    cancelled = tune("action=cancel", *ONE)
    assert cancelled.returncode == 2
    assert "study one runs on cluster=sim" in cancelled.stderr
    logs = tune("action=logs", *ONE, "trial=0")
    assert logs.returncode == 2
    assert "the simulated rack starts no process" in logs.stderr
    nothing = tune("action=logs", *ONE, "trial=7")
    assert nothing.returncode == 2
    assert "trial=7: no such trial" in nothing.stderr


@pytest.mark.slow
def test_local_logs_end_with_the_process_of_the_study(tune: Tune, tmp_path: Path) -> None:
    assert tune(*ONE, "load.min_duration_s=60.0", "load.concatenate_permutation=false").returncode == 0
    root = tmp_path / "runs" / "one"
    record = root / "study.json"
    record.write_text(record.read_text().replace('"backend": "sim"', '"backend": "local"'))
    (first,) = root.glob("*/raw/1")
    attempt = first.with_name("2")
    (attempt / "logs").mkdir(parents=True)
    (attempt / "logs" / "localhost_frontend.out").write_text("listening\nkilled in mid-sent")
    done = tune("action=logs", *ONE, "trial=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "==> localhost_frontend.out <==\nlistening\nkilled in mid-sent\n"


@pytest.mark.slow
def test_preflight_includes_the_clusters_answer(tune: Tune, slurm: FakeSlurm) -> None:
    words = ("action=preflight", *CLUSTER, "cluster.partition=small", "split.decode_workers=5")
    done = tune(*words)
    assert done.returncode == 1
    assert "found     18\n  expected  at most 4" in done.stdout
    assert "split" in done.stdout, "beside what the rules say"
    good = tune("action=preflight", *CLUSTER, "cluster.partition=rack")
    assert good.returncode == 0, good.stdout
    assert slurm.jobs == {}
