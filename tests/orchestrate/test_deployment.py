"""How a process of a plan is bound to the nodes that it runs on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from stand_ins import Trial

from tune.deploy.launch import read_launch
from tune.orchestrate.deployment import Deployment
from tune.orchestrate.interrupts import Interrupted, raise_once
from tune.orchestrate.running import Running
from tune.orchestrate.srun import step_command
from tune.orchestrate.starter import Bound, ChildProcesses, Nodes, Started

IMAGE = "--container-image=x"


class Noted(ChildProcesses):
    """Starts processes on this machine, and notes what was asked."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.bound: list[Bound] = []

    def start(self, bound: Bound) -> Started:
        self.bound.append(bound)
        return super().start(bound)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_kept_container_has_the_name_of_its_process_in_every_trial(tmp_path: Path, keeps: bool) -> None:
    plan = Trial(tmp_path).folder.plan
    launch = read_launch(plan).model_copy(update={"container": (IMAGE,), "keeps_containers": keeps})
    nodes = Nodes(("gb01",) * launch.nodes, ("127.0.0.1",) * launch.nodes)
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
    launch = read_launch(plan)

    def interrupt() -> None:
        if armed:
            armed.clear()
            signal.raise_signal(signal.SIGTERM)

    os.register_at_fork(after_in_parent=interrupt)
    nodes = Nodes(("gb01",) * launch.nodes, ("127.0.0.1",) * launch.nodes)
    running: list[Running] = []
    deployment = Deployment(launch, nodes, ChildProcesses(tmp_path), running, plan=plan, raw=tmp_path / "1")
    before = signal.signal(signal.SIGTERM, raise_once())
    try:
        with pytest.raises(Interrupted):
            deployment.start(deployment.services()[0])
    finally:
        signal.signal(signal.SIGTERM, before)
    (started,) = running
    started.started.kill()
