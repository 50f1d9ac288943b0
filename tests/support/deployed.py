"""Provide deployments of a trial of fake processes in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from support.fake_deployment import MARK, Trial
from support.waiting import wait_for
from tune.manifest.process import Process, ProcessRole
from tune.manifest.process_manifest import read_manifest
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses
from tune.orchestrator.managed_process import ManagedProcess

HOSTS = ("g01", "g02", "g02")
"""Hosts of three node indices, of which two are one machine."""


def deployed_on_hosts(trial: Trial, asks: Literal["evidence", "gpu_sample"], *argv: str) -> Deployment:
    """Return a deployment on HOSTS, of which nothing runs, whose process `asks` runs `argv` for all nodes."""
    gpus = tuple((index, 0) for index in range(len(HOSTS)))
    role: ProcessRole = "check" if asks == "evidence" else "sample"
    process = Process(asks, role, 0, gpus, {}, argv, f"logs/{asks}.out", inherits=(MARK,))
    manifest = read_manifest(trial.folder.plan).model_copy(update={asks: process})
    nodes, launcher = NodeAddresses(HOSTS, ("127.0.0.1",) * len(HOSTS)), ChildProcessLauncher(trial.root)
    return Deployment(manifest, nodes, launcher, [], plan=trial.folder.plan, raw=trial.attempt)


@contextmanager
def deployed(trial: Trial) -> Iterator[Deployment]:
    """Yield the deployment of a trial in this process, and end what it started."""
    manifest, scratch = read_manifest(trial.folder.plan), trial.root / "scratch"
    scratch.mkdir()
    nodes = NodeAddresses(("localhost",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    running: list[ManagedProcess] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, trial.mark)
        launcher = ChildProcessLauncher(scratch)
    try:
        yield Deployment(manifest, nodes, launcher, running, plan=trial.folder.plan, raw=trial.attempt)
    finally:
        for process in running:
            process.handle.kill()
        wait_for(lambda: all(process.handle.poll() is not None for process in running))
