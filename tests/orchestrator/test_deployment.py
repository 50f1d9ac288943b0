"""How a process of a plan is bound to the nodes that it runs on."""

from __future__ import annotations

import os
import signal
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


class Noted(ChildProcessLauncher):
    """Starts processes on this machine, and notes what was asked."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.bound: list[ResolvedProcess] = []

    def start(self, bound: ResolvedProcess) -> ProcessHandle:
        self.bound.append(bound)
        return super().start(bound)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_kept_container_has_the_name_of_its_process_in_every_trial(tmp_path: Path, keeps: bool) -> None:
    plan = Trial(tmp_path).folder.plan
    launch = read_manifest(plan).model_copy(update={"container": (IMAGE,), "keeps_containers": keeps})
    nodes = NodeAddresses(("gb01",) * launch.nodes, ("127.0.0.1",) * launch.nodes)
    asked = []
    for attempt in ("1", "2"):
        starter = Noted(tmp_path)
        deployment = Deployment(launch, nodes, starter, [], plan=plan, raw=tmp_path / attempt)
        running = deployment.start(deployment.services()[0])
        running.started.kill()
        asked.append([word for word in step_command(starter.bound[0]) if word.startswith("--container")])
    name = [f"--container-name=tune_{launch.processes[0].name}"] * keeps
    assert asked == [[IMAGE, *name]] * 2


def test_a_signal_in_the_middle_of_a_start_is_not_lost(tmp_path: Path) -> None:
    """It comes while the process forks, where Python drops what a handler raises."""
    plan, armed = Trial(tmp_path).folder.plan, [True]
    launch = read_manifest(plan)

    def interrupt() -> None:
        if armed:
            armed.clear()
            signal.raise_signal(signal.SIGTERM)

    os.register_at_fork(after_in_parent=interrupt)
    nodes = NodeAddresses(("gb01",) * launch.nodes, ("127.0.0.1",) * launch.nodes)
    running: list[ManagedProcess] = []
    deployment = Deployment(
        launch, nodes, ChildProcessLauncher(tmp_path), running, plan=plan, raw=tmp_path / "1"
    )
    before = signal.signal(signal.SIGTERM, raise_first_signal())
    try:
        with pytest.raises(Interrupted):
            deployment.start(deployment.services()[0])
    finally:
        signal.signal(signal.SIGTERM, before)
    (started,) = running
    started.started.kill()
