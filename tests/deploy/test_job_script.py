"""Test the job of a plan: its directives, its image and what is refused in them."""

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


REFUSED = {
    "--array=0-3": "no --array: a job runs its attempts once",
    "--requeue": "no --requeue: a job runs its attempts once",
    "--comment=mine": "no --comment: a job is found again",
    "--parsable": "no --parsable: a job is found again",
    "--wait": "no --wait: a job is found again",
    "--clusters=other": "no --clusters: tune looks for its jobs on this cluster",
    "--cluster=other": "no --cluster: tune looks for its jobs on this cluster",
    "--cluster-constraint=big": "no --cluster-constraint: tune looks for its jobs on this cluster",
    "--uid=root": "no --uid: tune looks for its jobs on this cluster",
    "--help": "no --help: sbatch would not submit",
    "--test-only": "no --test-only: sbatch would not submit",
    "--export=ALL,HF_TOKEN": "no --export: job.sbatch would hold the values",
    "--export-f=env": "no --export-file: job.sbatch would hold the values",
    "--exclude=g07": "no --exclude: cluster.exclude names such nodes",
    "--partition=other": "no --partition: cluster.partition is its setting, also where that is null",
    "--part=other": "no --partition: cluster.partition is its setting",
    "--reservation=other": "no --reservation: cluster.reservation is its setting",
    "--qos=other": "no --qos: cluster.qos is its setting",
    "--account=other": "no --account: cluster.account is its setting",
    "--chdir=/other": "no --chdir: the paths that tune gives a job begin in the folder",
    "--exclud=g07": "no --exclude: cluster.exclude names such nodes",
    "--arra=1-2": "no --array",
    "--requ": "no --requeue",
    "--cl=other": "no --cluster",
    "--test_only": "sbatch knows --test-only only",
    "--job_name=mine": "sbatch knows --job-name only",
    "--tim=1": "--time is asked for already",
    "--nodes=2": "--nodes is asked for already",
    "--mem=2": "--mem is asked for already",
    "--constr=b": "--constraint is asked for already",
}
"""What is refused, and the words that say why. sbatch reads shortened names."""


@pytest.mark.parametrize(("directive", "words"), REFUSED.items())
def test_no_extra_option_repeats_hides_or_moves_a_job(
    directive: str, words: str, make_facts: MakeFacts
) -> None:
    unset = dict.fromkeys(("partition", "account", "qos", "reservation"))
    facts = make_facts(extra_sbatch=["--constraint=a", "--mem=1", directive], **unset)
    with pytest.raises(ConfigurationError, match=words) as refused:
        sbatch_options(facts, 18, 4)
    assert f"found {directive!r}" in str(refused.value)


def test_options_of_sbatch_and_of_its_plugins_stay(make_facts: MakeFacts) -> None:
    """An option may bear the first letters of one that is refused or taken, and so may one of a plugin."""
    extra = {"gpus": "72", "mem-per-cpu": "1G", "mem": "0", "time-min": "60", "wait-all-nodes": "1"}
    extra |= {
        "nodelist": "g[01-18]",
        "container-image": "x",
        "site_mode": "1",
    }
    facts = make_facts(extra_sbatch=[f"--{name}={value}" for name, value in extra.items()])
    options = sbatch_options(facts, 18, 4)
    assert {name: options[name] for name in extra} == extra
