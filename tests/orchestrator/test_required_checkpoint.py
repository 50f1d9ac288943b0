"""Test that a broken checkpoint fails an attempt before any worker starts, with advice."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkpoints import SHARDS, write_checkpoint
from support.fake_deployment import MakeTrial

from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.orchestrator.attempt import run_attempt
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.slurm.node_check import checkpoint_findings
from tune.spec.settings import Settings


def allocate(nodes: int) -> NodeAddresses:
    return NodeAddresses(("localhost",) * nodes, ("127.0.0.1",) * nodes)


@pytest.mark.parametrize("lost", [*SHARDS[:1], "config.json"])
def test_broken_checkpoint_ends_an_attempt_before_its_first_process(
    lost: str, make_trial: MakeTrial, tmp_path: Path, shipped: Settings
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", shipped.model)
    (folder / lost).unlink()
    expected = ExpectedCheckpoint(folder=str(folder), model=shipped.model, kv_dtype="fp8")
    trial = make_trial(checkpoint=expected)
    processes = ManagedProcesses(print, last=True)
    launcher = ChildProcessLauncher(tmp_path / "scratch")
    assert run_attempt(trial.attempt, allocate, launcher, print, processes) == 3
    assert trial.record.cause == "harness", "every trial needs it, and the search learns nothing from it"
    error = trial.record.error or ""
    assert lost in error
    assert f"--local-dir {folder}" in error
    assert error.endswith("No worker was started.")
    assert not (trial.attempt / "logs").exists()
    (reported,) = checkpoint_findings(trial.folder.plan)
    assert lost in reported.found, "a node that is asked before a job says so too"
