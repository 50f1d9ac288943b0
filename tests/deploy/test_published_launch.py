"""Hold the plan of the reference configuration against the blocks of the published launch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed import changed, composed
from support.plans import launch_of, workers_of

from tune.deploy.image_steps import image_script
from tune.deploy.plan import LaunchPlan, render
from tune.spec.load import recommended_qps
from tune.spec.settings import Settings
from tune.spec.slurm_time import time_limit_s

BLOCKS = Path(__file__).parents[1] / "data" / "published_launch"
LAUNCH: dict[str, Any] = yaml.safe_load((BLOCKS / "launch.yaml").read_text())


@pytest.fixture(scope="module")
def settings() -> Settings:
    return composed("cluster=slurm")


@pytest.fixture(scope="module")
def plan(settings: Settings) -> LaunchPlan:
    return render(settings.trial_spec, settings.cluster)


@pytest.mark.parametrize("file", ["prefill.yaml", "decode.yaml"])
def test_engine_files_have_the_published_keys_and_no_others(file: str, plan: LaunchPlan) -> None:
    assert yaml.safe_load(plan.files[file]) == yaml.safe_load((BLOCKS / file).read_text())


def test_every_worker_has_the_published_variables_and_nodes(plan: LaunchPlan) -> None:
    counts, workers = LAUNCH["counts"], workers_of(plan)
    for role in ("prefill", "decode"):
        pool = [worker for worker in workers if worker.role == role]
        assert len(pool) == counts[f"NUM_{role.upper()}_WORKERS"]
        for worker in pool:
            assert LAUNCH["variables"].items() <= worker.env.items()
            assert len(worker.nodes) == counts[f"NUM_{role.upper()}_NODES"]
            assert len(worker.gpus) == counts["NUM_GPUS_PER_NODE"] * len(worker.nodes)
    assert len({node for worker in workers for node in worker.nodes}) == int(LAUNCH["directives"]["nodes"])


def test_services_listen_on_the_published_ports(plan: LaunchPlan) -> None:
    ports = {
        process.name: sorted(port.number for port in process.listens)
        for process in plan.processes
        if process.role in ("etcd", "nats", "frontend")
    }
    expected = LAUNCH["ports"]
    assert sorted(ports.values()) == sorted([[expected["frontend"]], expected["etcd"], [expected["nats"]]])
    assert {p.node_index for p in plan.processes if p.name in ports} == {0}


def test_job_has_the_published_directives(plan: LaunchPlan) -> None:
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in plan.files["job.sbatch"].splitlines()
        if line.startswith("#SBATCH")
    )
    assert LAUNCH["directives"].items() <= directives.items()


def test_steps_have_the_published_container(settings: Settings) -> None:
    """Options of pyxis have no effect on a job script, so they stand at the steps."""
    facts = settings.cluster.model_copy(
        update={
            "container_image": "/image.sqsh",
            "container_mounts": tuple(LAUNCH["container_mounts"]),
            "container_workdir": LAUNCH["container_workdir"],
        }
    )
    container = launch_of(render(settings.trial_spec, facts)).container
    assert set(LAUNCH["container_directives"]) <= set(container)
    assert f"--container-workdir={LAUNCH['container_workdir']}" in container
    (mounts,) = (option for option in container if option.startswith("--container-mounts="))
    assert mounts.endswith(",".join(LAUNCH["container_mounts"]))


def test_times_reach_what_they_are_meant_for(plan: LaunchPlan, settings: Settings) -> None:
    load = json.loads(plan.files["client.json"])["load"]
    for name, limit_s in LAUNCH["timeouts_s"].items():
        assert load[f"{name}_timeout_s"] == limit_s, "the client keeps them: nothing of Dynamo does"
    assert time_limit_s(settings.cluster.time_limit) == 4 * 3600
    deadlines = launch_of(plan).deadlines
    assert min(deadlines.quiet_s, deadlines.ready_s) > LAUNCH["warm_up_s"], (
        "a deployment is waited for until its workers are registered, never shorter than the published sleep"
    )


def test_rate_checkpoint_and_image_are_the_published_ones(settings: Settings) -> None:
    for gpus, rate_qps in LAUNCH["target_qps"].items():
        assert recommended_qps(gpus) == rate_qps
    assert settings.load.target_qps == LAUNCH["target_qps"][settings.hardware.gpus]
    assert settings.model.repository == LAUNCH["checkpoint"]
    build = settings.cluster.image
    assert build is not None
    assert build.model_dump() == LAUNCH["image"]
    assert f"IMAGE={build.tag}\n" in image_script("", build, Path("/image.sqsh"))


def test_every_variable_of_the_first_steps_is_explained_by_settings_that_exist(
    settings: Settings, root: Path
) -> None:
    page = (root / "docs" / "reference" / "traps.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")
        for line in page.partition("## Variables of steps 1 and 2")[2].splitlines()
        if line.startswith("| `")
    ]
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row[1])]
    assert explained == LAUNCH["shell_variables"]
    named = {path for row in rows for path in re.findall(r"`((?:cluster|load)\.[\w.]+)`", row[3])}
    assert len(named) >= 8
    for path in named:
        found: Any = settings
        for name in path.split("."):
            found = getattr(found, name)


def test_another_shape_is_another_launch(settings: Settings) -> None:
    """Each block follows the settings; none is written down."""
    other = changed(
        settings, "split.prefill_workers=13", "split.decode_workers=5", "decode.max_batch_size=256"
    )
    plan = render(other.trial_spec, other.cluster)
    assert yaml.safe_load(plan.files["decode.yaml"])["max_batch_size"] == 256
    assert sum(worker.role == "decode" for worker in workers_of(plan)) == 5
