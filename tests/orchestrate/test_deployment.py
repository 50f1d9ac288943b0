"""How a process of a plan is bound to the nodes that it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import Trial

from tune.deploy.launch import read_launch
from tune.orchestrate.deployment import Deployment
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
