"""Check the facts of a cluster: values of the example cluster, paths that no container sees, signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tune.spec.cluster import ClusterFacts
from tune.spec.findings import Finding, Severity
from tune.spec.mounts import is_mounted, mount_folders
from tune.spec.slurm_time import time_limit_s

EXAMPLE_CLUSTER = {"partition": "36x2-a01r", "account": "gtc_inference"}
"""Facts that are those of one cluster. Source: NVIDIA's MLPerf Inference v5.1 submission, 18-node launch."""

_PLACEHOLDERS = ("/your/", "/path/to/")
"""Beginnings of paths that stand for a reader's own."""


def check_cluster(facts: ClusterFacts, home: str, *, placeholders: Severity) -> tuple[Finding, ...]:
    """Return the facts of a cluster that would not work.

    Parameters
    ----------
    facts
        The cluster.
    home
        The user's home on its nodes, which the container sees where the facts say so.
    placeholders
        What a value of the example cluster is: an error where jobs run, a warning where nothing is launched.

    Returns
    -------
    tuple[Finding, ...]
        The findings, none where the facts are right.
    """
    return (*_placeholders(facts, placeholders), *_unmounted(facts, home), *_signalled_at_once(facts))


def _paths(facts: ClusterFacts) -> Mapping[str, str]:
    """Return the paths that steps use in the container, by their setting."""
    named = {"cluster.model_path": facts.model_path, "cluster.dynamo_venv": facts.dynamo_venv}
    return {name: path for name, path in named.items() if path is not None}


def _placeholders(facts: ClusterFacts, severity: Severity) -> Iterator[Finding]:
    """Yield the values that no cluster but the example has."""
    found: dict[str, str] = {
        f"cluster.{name}": value for name, value in EXAMPLE_CLUSTER.items() if getattr(facts, name) == value
    }
    paths = {**_paths(facts), "cluster.container_image": facts.container_image or ""}
    found |= {name: path for name, path in paths.items() if path.startswith(_PLACEHOLDERS)}
    mounts = [mount for mount in facts.container_mounts if mount.startswith(_PLACEHOLDERS)]
    found |= {"cluster.container_mounts": ", ".join(mounts)} if mounts else {}
    for name, value in found.items():
        yield Finding(
            severity,
            name,
            value,
            "that of your cluster, or null" if name.endswith(("partition", "account")) else "a path of yours",
            "it is a value of the example: copy the facts of the cluster, and make them yours",
            "conf/cluster/facts/gb200_rack.yaml",
        )


def _unmounted(facts: ClusterFacts, home: str) -> Iterator[Finding]:
    """Yield the paths that steps use and that the container does not see."""
    if facts.container_image is None:
        return
    for name, path in _paths(facts).items():
        if not path.startswith("/") or path.startswith(_PLACEHOLDERS) or is_mounted(path, facts, home):
            continue
        own = ", or null for the image's own" if name == "cluster.dynamo_venv" else ""
        mounts = ", ".join(mount_folders(facts)) or "none"
        if facts.container_mount_home:
            mounts += f"; the home as {'/root' if facts.container_remap_root else home}"
        yield Finding(
            "error",
            name,
            path,
            f"a path below a folder of cluster.container_mounts ({mounts}){own}",
            "workers run in the image and see only its own files and what is mounted",
            "pyxis, --container-mounts; enroot, hook 10-home.sh",
        )


def _signalled_at_once(facts: ClusterFacts) -> Iterator[Finding]:
    limit_s = time_limit_s(facts.time_limit)
    if limit_s is None or facts.signal_s < limit_s:
        return
    yield Finding(
        "error",
        "cluster.signal_s",
        f"{facts.signal_s} with a time limit of {facts.time_limit}",
        f"less than the {limit_s:.0f} s that the job has",
        "a job stops by itself so long before its time limit: this one as soon as it begins, if at all",
        "Slurm, sbatch(1), --signal",
    )
