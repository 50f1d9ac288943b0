"""Test paths in a container and on its node."""

from __future__ import annotations

from typing import Any

import pytest

from tune.spec.cluster import ClusterFacts
from tune.spec.mounts import host_path, is_mounted
from tune.spec.settings import Settings

HOME = "/home/ada"
REMAPPED: dict[str, Any] = {"container_mount_home": True, "container_remap_root": True}
AS_IS: dict[str, Any] = {"container_mount_home": True, "container_remap_root": False}


def facts(shipped: Settings, *mounts: str, **changes: Any) -> ClusterFacts:
    image = {"container_image": "/a.sqsh", "container_mount_home": False, "container_mounts": mounts}
    return shipped.cluster.model_copy(update=image | changes)


@pytest.mark.parametrize(
    ("mounts", "changes", "path", "on_the_node"),
    [
        (("/lustre",), {}, "/lustre/m", "/lustre/m"),
        (("/lustre:/data:ro",), {}, "/data/m", "/lustre/m"),
        (("/a:/data", "/b:/data/models"), {}, "/data/models/m", "/b/m"),
        (("/a:/data",), {}, "/data", "/a"),
        ((), REMAPPED, "/root/m", "~/m"),
        ((), AS_IS, f"{HOME}/m", f"{HOME}/m"),
    ],
)
def test_mounted_path_is_found_on_the_node(
    mounts: tuple[str, ...], changes: dict[str, Any], path: str, on_the_node: str, shipped: Settings
) -> None:
    container = facts(shipped, *mounts, **changes)
    assert is_mounted(path, container, HOME)
    assert host_path(path, container) == on_the_node


@pytest.mark.parametrize(
    ("mounts", "changes", "path"),
    [
        ((), {}, "/data/m"),
        (("/data:/elsewhere",), {}, "/data/m"),
        (("/data/m",), {}, "/data/m-old"),
        ((), REMAPPED, f"{HOME}/m"),  # enroot mounts the home as /root then
        ((), AS_IS, "/root/m"),
    ],
)
def test_other_paths_are_the_image_s_own(
    mounts: tuple[str, ...], changes: dict[str, Any], path: str, shipped: Settings
) -> None:
    assert not is_mounted(path, facts(shipped, *mounts, **changes), HOME)


def test_paths_without_an_image_are_those_of_the_node(shipped: Settings) -> None:
    assert host_path("/root/m", facts(shipped, "/a:/root", **REMAPPED, container_image=None)) == "/root/m"
