"""Map paths in a container to those on its node. Source: pyxis, README; enroot, hook 10-home.sh."""

from __future__ import annotations

from pathlib import PurePosixPath

from tune.spec.cluster import ClusterFacts

ROOT_HOME = "/root"
"""Where enroot mounts the user's home with --container-remap-root."""


def mount_folders(facts: ClusterFacts) -> dict[str, str]:
    """Return the folders of `cluster.container_mounts` on the node, by their path in the container.

    An entry is SOURCE:TARGET[:FLAGS], or one path for both.
    """
    parts = [mount.split(":") for mount in facts.container_mounts]
    return {(part[1] if len(part) > 1 else part[0]): part[0] for part in parts}


def host_path(path: str, facts: ClusterFacts) -> str:
    """Return where `path`, as the workers see it, is on their node; a leading ~ stands for the home there.

    A path in no mount is returned as it is: without an image, or in the home, it is that of the node.
    """
    if facts.container_image is None:
        return path
    folders = mount_folders(facts)
    inside = [target for target in folders if PurePosixPath(path).is_relative_to(target)]
    if inside:
        target = max(inside, key=len)
        return str(PurePosixPath(folders[target]) / PurePosixPath(path).relative_to(target))
    if facts.container_mount_home and facts.container_remap_root and _is_inside(path, ROOT_HOME):
        return str(PurePosixPath("~") / PurePosixPath(path).relative_to(ROOT_HOME))
    return path


def is_mounted(path: str, facts: ClusterFacts, home: str) -> bool:
    """Return whether the container of `facts` sees the absolute `path` through a mount.

    `home` is the user's home on the nodes, mounted where the facts say so.
    """
    folders = list(mount_folders(facts))
    if facts.container_mount_home:
        folders.append(ROOT_HOME if facts.container_remap_root else home)
    return any(_is_inside(path, folder) for folder in folders)


def _is_inside(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
