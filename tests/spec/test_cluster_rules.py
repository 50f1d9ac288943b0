"""Test the rules on a cluster's facts: paths that the container does not see, and placeholders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune.spec.cluster import ClusterFacts, CommandPrefix
from tune.spec.cluster_rules import EXAMPLE_CLUSTER, check_cluster, check_written_paths, example_values
from tune.spec.findings import Finding, Severity
from tune.spec.mounts import IMAGE_FOLDERS
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

HOME = "/home/ada"
OWN: dict[str, Any] = {"partition": "batch", "account": None, "model_path": "/models/405b"}
IMAGE: dict[str, Any] = {"container_image": "/a.sqsh", "container_mount_home": False}


def findings(shipped: Settings, placeholders: Severity = "error", **changes: Any) -> tuple[Finding, ...]:
    facts: ClusterFacts = shipped.cluster.model_copy(update=OWN | IMAGE | changes)
    return check_cluster(facts, HOME, placeholders=placeholders)


@pytest.mark.parametrize("mounts", [(), ("/models:/elsewhere",), ("/model:/model",), ("/models/405b-old",)])
def test_path_outside_every_mount_is_an_error(mounts: tuple[str, ...], shipped: Settings) -> None:
    (finding,) = findings(shipped, container_mounts=mounts)
    assert (finding.severity, finding.path, finding.found) == ("error", "cluster.model_path", "/models/405b")
    assert all(mount.rpartition(":")[2] in finding.expected for mount in mounts)
    broken = findings(shipped, container_mounts=mounts, dynamo_venv="/opt/dynamo")
    assert [finding.path for finding in broken] == ["cluster.model_path", "cluster.dynamo_venv"]


def test_home_is_mounted_as_that_of_root(shipped: Settings) -> None:
    mounted = {"container_mount_home": True, "model_path": f"{HOME}/405b"}
    (finding,) = findings(shipped, **mounted, container_remap_root=True)
    assert "the home as /root" in finding.expected
    assert findings(shipped, **mounted, container_remap_root=False) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"container_mounts": ("/models",)},
        {"container_mounts": ("/lustre:/x", "/lustre/models:/models:ro")},
        {"container_image": None},
        {"container_mount_home": True, "container_remap_root": True, "model_path": "/root/405b"},
        {"model_path": "nvidia/Llama-3.1-405B-Instruct-FP4"},
    ],
)
def test_path_inside_a_mount_has_no_finding(changes: dict[str, Any], shipped: Settings) -> None:
    assert findings(shipped, **changes) == ()


@pytest.mark.parametrize("severity", ["error", "warning"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *EXAMPLE_CLUSTER.items(),
        ("model_path", "/your/path/to/model"),
        ("container_image", "/path/to/your/mlperf-inference.sqsh"),
        ("container_mounts", ("/models", "/your/path/to/mlperf-inference:/mlperf-inference/")),
    ],
)
def test_value_of_the_example_cluster_is_named(
    name: str, value: Any, severity: Severity, shipped: Settings
) -> None:
    (finding,) = findings(shipped, severity, **{"container_mounts": ("/models",), name: value})
    assert (finding.severity, finding.path) == (severity, f"cluster.{name}")


ENGINE_PATHS: dict[str, tuple[dict[str, Any], str]] = {
    "a draft model": (
        {"prefill__extra": {"speculative_config": {"speculative_model_dir": "/drafts/eagle3"}}},
        "prefill.extra.speculative_config.speculative_model_dir",
    ),
    "a table in a list of a group": (
        {"decode__kv_cache_config__tables": ["/models/a.yaml", "/tables/b.yaml"]},
        "decode.kv_cache_config.tables[1]",
    ),
    "a path in JSON": (
        {"decode__extra": {"speculative_config": '{"model": "/drafts/eagle3"}'}},
        "decode.extra.speculative_config.model",
    ),
    "a variable of a pool": ({"prefill__env": {"HF_HOME": "/drafts/hf"}}, "prefill.env.HF_HOME"),
    "a variable of the stack": ({"stack__env": {"DYN_CONFIG": "/tables/a"}}, "stack.env.DYN_CONFIG"),
    "a list of folders": ({"decode__env": {"PATH": "/models:/usr/bin:/drafts/bin"}}, "decode.env.PATH"),
}


def written_findings(
    spec: TrialSpec, shipped: Settings, placeholders: Severity = "error", **changes: Any
) -> list[Finding]:
    facts = shipped.cluster.model_copy(update=OWN | IMAGE | {"container_mounts": ("/models",)} | changes)
    groups = {"prefill": spec.prefill, "decode": spec.decode, "stack": spec.stack}
    return list(check_written_paths(groups, facts, HOME, placeholders=placeholders))


@pytest.mark.parametrize("case", ENGINE_PATHS)
def test_written_path_outside_of_every_mount_is_named(
    case: str, make_spec: Callable[..., TrialSpec], shipped: Settings
) -> None:
    changes, path = ENGINE_PATHS[case]
    spec = make_spec(**changes)
    (finding,) = written_findings(spec, shipped)
    assert (finding.severity, finding.path) == ("warning", path)
    assert "container_mounts (/models), or one that the image has" in finding.expected
    assert not written_findings(spec, shipped, container_mounts=("/models", "/drafts", "/tables"))
    assert not written_findings(spec, shipped, container_image=None), "the node's own files"


@pytest.mark.parametrize(
    "value", ["/models/eagle3", "nvidia/EAGLE3", "{% if /x %}", {"n": 3, "of": [None, True]}]
)
def test_what_is_no_path_or_inside_a_mount_has_no_finding(
    value: Any, make_spec: Callable[..., TrialSpec], shipped: Settings
) -> None:
    assert not written_findings(make_spec(decode__extra={"chat_template": value}), shipped)


@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated", "frontend"])
@pytest.mark.parametrize(
    ("words", "path"),
    [(("/opt/wrap.sh", "-v"), "/opt/wrap.sh"), (("env", "LD_PRELOAD=/site/a.so"), "/site/a.so")],
)
def test_program_before_a_command_outside_of_every_mount_is_named(
    role: str, words: tuple[str, ...], path: str, make_spec: Callable[..., TrialSpec], shipped: Settings
) -> None:
    prefix = CommandPrefix(**{role: words})
    (finding,) = written_findings(make_spec(), shipped, command_prefix=prefix)
    assert (finding.severity, finding.found) == ("warning", path)
    assert finding.path.startswith(f"cluster.command_prefix.{role}[")
    mounts = ("/opt", "/site")
    assert not written_findings(make_spec(), shipped, command_prefix=prefix, container_mounts=mounts)
    assert not written_findings(make_spec(), shipped, command_prefix=prefix, container_image=None)


@pytest.mark.parametrize("folder", IMAGE_FOLDERS)
def test_what_every_image_has_of_its_own_has_no_finding(
    folder: str, make_spec: Callable[..., TrialSpec], shipped: Settings
) -> None:
    path = f"{folder}/x"
    spec = make_spec(prefill__env={"UCX_DIR": path, "PLAIN": "1", "URL": "http://a/b", "HF_TOKEN": None})
    assert not written_findings(spec, shipped, command_prefix=CommandPrefix(decode=(path, "-m", "0,1")))
    (beside,) = written_findings(make_spec(prefill__env={"UCX_DIR": f"{folder}-x"}), shipped)
    assert beside.path == "prefill.env.UCX_DIR"


@pytest.mark.parametrize("severity", ["error", "warning"])
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"prefill__extra": {"template": "/path/to/template"}}, "prefill.extra.template"),
        ({"decode__env": {"HF_HOME": "/your/path"}}, "decode.env.HF_HOME"),
        ({"stack__env": {"PATH": "/your/bin:/usr/bin"}}, "stack.env.PATH"),
    ],
)
def test_written_placeholder_is_named(
    changes: dict[str, Any],
    path: str,
    severity: Severity,
    make_spec: Callable[..., TrialSpec],
    shipped: Settings,
) -> None:
    spec = make_spec(**changes)
    (finding,) = written_findings(spec, shipped, severity, container_image=None)
    assert (finding.severity, finding.path) == (severity, path)
    groups = {"prefill": spec.prefill, "decode": spec.decode, "stack": spec.stack}
    assert (path, finding.found) in example_values(shipped.cluster, groups)


def test_placeholder_before_a_command_is_named(
    make_spec: Callable[..., TrialSpec], shipped: Settings
) -> None:
    prefix = CommandPrefix(frontend=("taskset", "/path/to/wrap.sh"))
    (finding,) = written_findings(make_spec(), shipped, container_image=None, command_prefix=prefix)
    assert (finding.severity, finding.path) == ("error", "cluster.command_prefix.frontend[1]")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"output": "/your/logs/%j.log"}, "cluster.output"),
        ({"srun_env": {"ENROOT_CACHE_PATH": "/path/to/cache"}}, "cluster.srun_env.ENROOT_CACHE_PATH"),
        ({"srun_options": ("--mpi=pmix", "--chdir=/your/folder")}, "cluster.srun_options[1]"),
        ({"extra_sbatch": ("--comment=x", "--error=/path/to/log")}, "cluster.extra_sbatch[1]"),
    ],
)
def test_placeholder_that_the_host_reads_is_named(
    changes: dict[str, Any], path: str, shipped: Settings
) -> None:
    (finding,) = findings(shipped, container_mounts=("/models",), **changes)
    assert (finding.severity, finding.path) == ("error", path)


def test_the_example_is_that_of_the_shipped_facts(root: Path) -> None:
    facts = yaml.safe_load((root / "conf" / "cluster" / "facts" / "gb200_rack.yaml").read_text())
    assert {name: facts[name] for name in EXAMPLE_CLUSTER} == EXAMPLE_CLUSTER
