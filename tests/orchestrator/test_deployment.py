"""Test how a process of a plan is bound to its nodes and started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.fake_deployment import Trial

from tune.manifest.process_manifest import read_manifest
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses, ProcessHandle, ResolvedProcess
from tune.orchestrator.managed_process import ManagedProcess
from tune.orchestrator.slurm.srun import step_command
from tune.orchestrator.supervision.signals import Interrupted, raise_first_signal

IMAGE = "--container-image=x"


class RecordingLauncher(ChildProcessLauncher):
    """Start processes on this machine, and record them."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.resolved: list[ResolvedProcess] = []

    def start(self, resolved: ResolvedProcess) -> ProcessHandle:
        self.resolved.append(resolved)
        return super().start(resolved)


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [False, True])
def test_kept_container_is_named_after_its_process(tmp_path: Path, keeps: bool) -> None:
    plan = Trial(tmp_path).folder.plan
    manifest = read_manifest(plan).model_copy(update={"container": (IMAGE,), "keeps_containers": keeps})
    nodes = NodeAddresses(("gb01",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    container_options = []
    for attempt in ("1", "2"):
        launcher = RecordingLauncher(tmp_path)
        deployment = Deployment(manifest, nodes, launcher, [], plan=plan, raw=tmp_path / attempt)
        running = deployment.start(deployment.services()[0])
        running.handle.kill()
        container_options.append(
            [word for word in step_command(launcher.resolved[0]) if word.startswith("--container")]
        )
    name = [f"--container-name=tune_{manifest.processes[0].name}"] * keeps
    assert container_options == [[IMAGE, *name]] * 2


def test_signal_during_a_start_is_not_lost(tmp_path: Path) -> None:
    """The signal arrives while the process forks, where Python drops what a handler raises."""
    plan, armed = Trial(tmp_path).folder.plan, [True]
    manifest = read_manifest(plan)

    def interrupt() -> None:
        if armed:
            armed.clear()
            signal.raise_signal(signal.SIGTERM)

    os.register_at_fork(after_in_parent=interrupt)
    nodes = NodeAddresses(("gb01",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    running: list[ManagedProcess] = []
    deployment = Deployment(
        manifest, nodes, ChildProcessLauncher(tmp_path), running, plan=plan, raw=tmp_path / "1"
    )
    before = signal.signal(signal.SIGTERM, raise_first_signal())
    try:
        with pytest.raises(Interrupted):
            deployment.start(deployment.services()[0])
    finally:
        signal.signal(signal.SIGTERM, before)
    (started,) = running
    started.handle.kill()


def test_registrations_by_files_are_kept_alive(tmp_path: Path) -> None:
    plan = Trial(tmp_path).folder.plan
    manifest = read_manifest(plan)
    nodes = NodeAddresses(("gb01",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    deployment = Deployment(
        manifest, nodes, ChildProcessLauncher(tmp_path), [], plan=plan, raw=tmp_path / "1"
    )
    deployment.require_alive()
    instance = tmp_path / "discovery" / "v1" / "instances" / "dynamo%2Fbackend%2Fgenerate%2Fd3b754b4bc533603"
    instance.parent.mkdir(parents=True)
    instance.touch()
    os.utime(instance, (0, 0))
    deployment.require_alive()
    assert instance.stat().st_mtime > time.time()
