"""Facts of a cluster: paths that the container does not see, and values of the example cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tune.spec.cluster import ClusterFacts
from tune.spec.cluster_rules import EXAMPLE_CLUSTER, check_cluster
from tune.spec.findings import Finding, Severity
from tune.spec.settings import Settings

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


def test_the_example_is_that_of_the_shipped_facts(root: Path) -> None:
    facts = yaml.safe_load((root / "conf" / "cluster" / "facts" / "gb200_rack.yaml").read_text())
    assert {name: facts[name] for name in EXAMPLE_CLUSTER} == EXAMPLE_CLUSTER
