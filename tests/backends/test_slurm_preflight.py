"""Test what a cluster is asked before a job is submitted, and what is said of its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import write_checkpoint
from support.composed import changed, composed
from support.fake_slurm import FakeSlurm

from tune.backends.registry import BACKENDS
from tune.backends.slurm.bootstrap import make_node_environment
from tune.backends.slurm.node_preflight import check_on_node
from tune.backends.slurm.preflight import check_slurm, parse_partitions, require_cluster
from tune.errors import ConfigurationError, ResumableError
from tune.spec.findings import Finding, only_errors
from tune.spec.settings import Settings


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", str(fake.path), prepend=":")
    return fake


def found(*words: str) -> dict[str, Finding]:
    settings = changed(composed("cluster=slurm", "cluster.partition=rack"), *words)
    return {finding.path: finding for finding in check_slurm(settings.cluster, settings.trial_spec)}


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_job_that_fits_has_no_error() -> None:
    assert only_errors(found().values()) == ()
    assert only_errors(found("cluster.partition=null").values()) == (), "the default partition is asked for"
    assert only_errors(found("cluster.partition=hidden").values()) == (), "sinfo need not show it"


def test_missing_slurm_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found()["cluster"].found == "no sbatch, srun, squeue, scontrol, scancel on the PATH"


def test_silent_controller_is_reported_in_slurms_words(slurm: FakeSlurm) -> None:
    slurm.fail("scontrol", "slurm_load_partitions: Unable to contact slurm controller (connect failure)")
    assert "Unable to contact slurm controller (connect failure)" in found()["cluster"].found


@pytest.mark.usefixtures("slurm")
def test_every_misfit_is_reported_at_once() -> None:
    broken = found("cluster.partition=small", "cluster.time_limit='1:00:00'", "cluster.model_path=/nowhere")
    lifted = "or in cluster.qos a QOS with the flag"
    assert broken["hardware.nodes"].expected == f"at most 4, {lifted} PartitionMaxNodes"
    assert broken["cluster.time_limit"].expected == f"at most 30 minutes, {lifted} PartitionTimeLimit"
    assert broken["cluster.model_path"].severity == "warning"
    assert len(only_errors(broken.values())) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_limit_that_a_qos_may_lift_is_a_warning() -> None:
    """A QOS with PartitionTimeLimit and PartitionMaxNodes does; the nodes that there are, none does."""
    words = ("cluster.partition=small", "cluster.time_limit='1:00:00'", "cluster.qos=long")
    lifted = found(*words)
    assert {lifted[path].severity for path in ("hardware.nodes", "cluster.time_limit")} == {"warning"}
    assert "unless QOS long has the flag PartitionTimeLimit" in lifted["cluster.time_limit"].why
    assert found(*words, "hardware.nodes=19")["hardware.nodes"].severity == "error"


@pytest.mark.usefixtures("slurm")
def test_one_partition_of_a_list_suffices(tmp_path: Path, shipped: Settings) -> None:
    """Slurm starts the job in one that fits; the others are named, and an unknown one is refused."""
    model = write_checkpoint(tmp_path / "model", shipped.model)
    words = ("cluster.time_limit='1:00:00'", f"cluster.model_path={model}")
    listed = found("cluster.partition='small,rack'", *words)
    assert {path: finding.severity for path, finding in listed.items()} == {
        "hardware.nodes": "warning",
        "cluster.time_limit": "warning",
    }
    assert len(only_errors(found("cluster.partition='small,rak'", *words).values())) == 3
    nowhere = found("cluster.partition='small,rack'", "hardware.nodes=19", "cluster.time_limit=2-0")
    assert nowhere["hardware.nodes"].severity == nowhere["cluster.time_limit"].severity == "error"


@pytest.mark.usefixtures("slurm")
def test_checkpoint_that_this_machine_sees_is_checked(tmp_path: Path, shipped: Settings) -> None:
    model = write_checkpoint(tmp_path / "model", shipped.model)
    (model / "tokenizer.json").unlink()
    broken = found(f"cluster.model_path={model}")["cluster.model_path"]
    assert (broken.severity, "no tokenizer" in broken.found) == ("error", True)
    assert "cluster.model_path" not in found(f"cluster.model_path={model}", "stack.engine=dynamo_mocker")


@pytest.mark.usefixtures("slurm")
def test_unlimited_job_needs_a_partition_without_a_limit() -> None:
    assert found("cluster.time_limit=UNLIMITED")["cluster.time_limit"].found == "UNLIMITED"
    assert "cluster.time_limit" not in found("cluster.time_limit=0", "cluster.partition=hidden")


@pytest.mark.usefixtures("slurm")
def test_unknown_partition_is_reported_with_the_existing_ones() -> None:
    finding = found("cluster.partition=rak")["cluster.partition"]
    assert finding.found == "rak"
    assert finding.expected == "one of hidden, rack, small (did you mean rack?)"


@pytest.mark.slow
def test_refusal_of_sbatch_test_only_is_reported(slurm: FakeSlurm) -> None:
    slurm.fail("sbatch", "allocation failure: Invalid account or account/partition combination specified")
    finding = found()["cluster"]
    assert finding.severity == "error"
    assert "Invalid account or account/partition combination specified" in finding.found
    assert slurm.jobs == {}


@pytest.mark.usefixtures("slurm")
def test_quick_checks_run_before_a_submission() -> None:
    settings = composed("cluster=slurm", "cluster.partition=rak")
    with pytest.raises(ConfigurationError, match=r"one of hidden, rack, small[\s\S]*nothing was submitted"):
        require_cluster(settings.cluster, settings.trial_spec)


@given(st.text())
def test_any_output_is_parsed_as_partitions(text: str) -> None:
    parse_partitions(text)
    parse_partitions(f"PartitionName=p TotalNodes={text} MaxNodes={text} MaxTime={text}")


@given(st.integers(1, 10**6), st.integers(1, 10**6) | st.just("UNLIMITED"))
def test_partition_is_parsed_with_its_limits(nodes: int, most: int | str) -> None:
    line = f"PartitionName=p State=UP Default=NO MaxNodes={most} MaxTime=UNLIMITED TotalNodes={nodes}"
    partition = parse_partitions(f"{line}\n")["p"]
    assert (partition.nodes, partition.max_nodes) == (nodes, None if most == "UNLIMITED" else most)
    assert partition.max_time_s is None


OF_THE_WHOLE_JOB = ("--segment=18", "--nodel=g[01-18]", "--gpus=72", "--time-min=60")
CLUSTER = ("cluster=slurm", "cluster.partition=rack", "cluster.python=/shared/nodes/bin/python3")


@pytest.mark.parametrize(
    ("limit", "preflight_limit", "bootstrap_limit"),
    [("UNLIMITED", "0:15:00", "1:00:00"), ("-1", "0:15:00", "1:00:00"), ("10", "10", "10")],
)
def test_a_job_of_one_node_asks_for_no_more(
    limit: str, preflight_limit: str, bootstrap_limit: str, slurm: FakeSlurm, tmp_path: Path
) -> None:
    """It gets the partition's own nodes: options of the whole job would be refused with --nodes=1."""
    settings = changed(composed(*CLUSTER), f"runs_dir={tmp_path}", f"cluster.time_limit='{limit}'")
    extra = ("--constraint=gb200", *OF_THE_WHOLE_JOB)
    settings = settings.model_copy(
        update={"cluster": settings.cluster.model_copy(update={"extra_sbatch": extra})}
    )
    slurm.fail("sbatch", "not today")
    with pytest.raises(ResumableError, match="not today"):
        make_node_environment(settings, lambda _: None)
    (finding,) = check_on_node(settings, lambda _: None)
    assert "not today" in finding.found
    for asked, expected in zip(_asked_of_sbatch(slurm), (bootstrap_limit, preflight_limit), strict=True):
        assert {"--nodes=1", "--constraint=gb200", f"--time={expected}"} <= asked
        assert not [word for word in asked if word.startswith(("--sig", *OF_THE_WHOLE_JOB))]


def _asked_of_sbatch(slurm: FakeSlurm) -> list[set[str]]:
    """Return the words of each call of sbatch."""
    calls = json.loads(slurm.state.read_text())["asked"]
    return [set(words) for program, *words in calls if program == "sbatch"]


@pytest.mark.slow  # composes a configuration
def test_paths_of_every_pool_and_of_the_stack_are_looked_at() -> None:
    words = ("+aggregated.env.HF_HOME=/your/hf", "+stack.env.HF_HOME=/site/hf")
    image = ("cluster.container_image=/a.sqsh", "cluster.container_mounts=[]")
    found = BACKENDS["slurm"].check(composed("cluster=slurm", "split=aggregated", *image, *words))
    severities = {finding.path: finding.severity for finding in found if "HF_HOME" in finding.path}
    assert severities == {
        "aggregated.env.HF_HOME": "error",
        "stack.env.HF_HOME": "warning",
    }
