"""The job of a plan: its directives, its image and what is refused in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.plans import launch_of

from tune.deploy.job_script import sbatch_options
from tune.deploy.plan import render
from tune.errors import ConfigurationError
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]


def test_default_header_is_the_published_one_with_a_stop_signal(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    script = render(make_spec(), make_facts()).files["job.sbatch"]
    assert [line for line in script.splitlines() if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=mlperf_405B_test",
        "#SBATCH --nodes=18",
        "#SBATCH --partition=36x2-a01r",
        "#SBATCH --account=gtc_inference",
        "#SBATCH --time=4:00:00",
        "#SBATCH --signal=B:USR2@90",
        "#SBATCH --no-requeue",
        "#SBATCH --exclusive",
        "#SBATCH --output=./slurm_llama405b_dynamo_disagg_18node_a01r_%j.txt",
    ]
    assert script.startswith("#!/bin/bash\n#SBATCH")


def test_absent_facts_leave_no_line_and_extra_lines_stay(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    facts = make_facts(
        partition=None,
        account=None,
        qos="high prio",
        reservation="maint",
        exclusive=False,
        extra_sbatch=["--overcommit", "--constraint=a&b"],
    )
    script = render(make_spec(), facts).files["job.sbatch"]
    options = [line.split()[1].split("=")[0] for line in script.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        *("--job-name", "--nodes", "--qos", "--reservation", "--time", "--signal", "--no-requeue"),
        *("--overcommit", "--constraint", "--output"),
    ]
    assert "#SBATCH --qos='high prio'\n" in script
    assert "#SBATCH --constraint='a&b'\n" in script


def test_gpus_are_requested_where_they_are_generic_resources(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    spec, facts = make_spec(), make_facts(gpus_per_node_option=True)
    assert sbatch_options(facts, 18, 4)["gpus-per-node"] == 4
    assert launch_of(render(spec, facts)).gpus_per_node == 4
    assert "gpus-per-node" not in sbatch_options(make_facts(), 18, 4)
    assert launch_of(render(spec, make_facts())).gpus_per_node is None


def test_image_and_mounts_are_options_of_its_steps(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    mounts = ["/lustre:/lustre", "/etc/hosts"]
    facts = make_facts(container_image="/a b.sqsh", container_mounts=mounts, container_workdir="/work")
    assert launch_of(render(make_spec(), facts)).container == (
        "--container-image=/a b.sqsh",
        "--container-mounts=${PLAN_DIR}:${PLAN_DIR},/lustre:/lustre,/etc/hosts",
        "--container-workdir=/work",
        "--container-remap-root",
        "--container-mount-home",
    )
    bare = make_facts(container_image="x", container_remap_root=False, container_mount_home=False)
    assert len(launch_of(render(make_spec(), bare)).container) == 2
    assert launch_of(render(make_spec(), make_facts())).container == ()


def test_containers_are_kept_with_an_image_and_the_setting(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    image, keep = {"container_image": "x"}, {"container_keep": True}
    kept = [
        launch_of(render(make_spec(), make_facts(**facts))).keeps_containers
        for facts in ({}, keep, image, image | keep)
    ]
    assert kept == [False, False, False, True]


@pytest.mark.parametrize("field", ["job_name", "partition", "account", "qos", "reservation", "output"])
@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_directive_cannot_become_a_command(
    field: str, end: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=f"cluster.{field}"):
        render(make_spec(), make_facts(**{field: f"x{end}touch pwned"}))


@pytest.mark.parametrize(
    "directive",
    ["--exclusive\ntouch pwned", "exclusive", "", "--", "--=4", "-C gb200", "--constraint gb200", "--time=1"],
)
def test_extra_sbatch_holds_options_only(directive: str, make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster.extra_sbatch"):
        render(make_spec(), make_facts(extra_sbatch=[directive]))


@pytest.mark.parametrize("directive", ["--array=0-3", "--requeue", "--wait", "--comment=mine", "--parsable"])
def test_no_extra_option_repeats_or_hides_a_job(
    directive: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=r"expected none of array, comment"):
        render(make_spec(), make_facts(extra_sbatch=[directive]))
