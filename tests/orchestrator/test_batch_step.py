"""Test the batch step of a Slurm job by itself: no command of Slurm's runs here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import wait_for

from tune.orchestrator.slurm.batch_step import run_allocation
from tune.orchestrator.supervision.process_tree import descendants

RUN = """
import sys
from tune.orchestrator.slurm.batch_step import run_allocation
print(run_allocation(sys.argv[1]))
"""


def test_job_with_another_id_does_nothing(
    job: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (job / "job.json").write_text(json.dumps({"job_id": "7"}))
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert run_allocation(str(job)) == 3
    assert "belongs to another Slurm job" in capfd.readouterr().err
    assert [path.name for path in job.iterdir()] == ["job.json"]


@pytest.mark.slow
def test_damaged_record_of_a_job_does_not_stop_it(job: Path) -> None:
    (job / "job.json").write_text('{"job_id": "')
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "g[1-2]"}
    (job / "closed").touch()
    command = [sys.executable, "-c", RUN, str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.slow
def test_supervisor_reports_a_killed_orchestrator(job: Path) -> None:
    """A lack of memory on the first node kills it, and submitit calls the job completed."""
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "g[1-2]"}
    supervisor = subprocess.Popen(
        [sys.executable, "-c", RUN, str(job)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((job / "scratch").exists)
    (orchestrator,) = descendants(supervisor.pid)
    os.kill(orchestrator, signal.SIGKILL)
    out, said = supervisor.communicate(timeout=120)
    assert out.strip() == str(128 + signal.SIGKILL)
    assert "the orchestrator was ended by SIGKILL and left no record" in said
    assert not (job / "scratch").exists()
