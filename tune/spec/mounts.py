"""Map paths in a container to those on its node. Source: pyxis, README; enroot, hook 10-home.sh."""

from __future__ import annotations

from pathlib import PurePosixPath

from tune.spec.cluster import ClusterFacts

ROOT_HOME = "/root"
"""Where enroot mounts the user's home with --container-remap-root."""

IMAGE_FOLDERS = (
    *("/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/var", "/tmp", "/run", "/dev", "/proc", "/sys"),
    *("/opt/nvidia", "/opt/hpcx"),
)
"""Folders that every image has of its own: those of the operating system (Filesystem Hierarchy Standard 3.0)
and those of NVIDIA's images (its tools, HPC-X). A site keeps files of its
nodes in the rest of /opt, in /srv, /mnt, /home and folders of its own."""


def is_of_image(path: str) -> bool:
    """Return whether the absolute `path` is in a folder that every image has of its own."""
    return any(_is_inside(path, folder) for folder in IMAGE_FOLDERS)


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
