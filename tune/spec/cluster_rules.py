"""Check the facts of a cluster: values of the example cluster, paths that no container sees, signals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine
from tune.spec.environment import WithEnvironment
from tune.spec.findings import Finding, Severity
from tune.spec.mounts import ROOT_HOME, is_mounted, is_of_image, mount_folders
from tune.spec.slurm_time import time_limit_s

EXAMPLE_CLUSTER = {"partition": "36x2-a01r", "account": "gtc_inference"}
"""Facts that are those of one cluster. Source: NVIDIA's MLPerf Inference v5.1 submission, 18-node launch."""

_PLACEHOLDERS = ("/your/", "/path/to/")
"""Beginnings of paths that stand for a reader's own."""

_EXAMPLE_FILE = "conf/cluster/facts/gb200_rack.yaml"
_SEEN = "workers run in the image and see only its own files and what is mounted"
_MOUNTS_SOURCE = "pyxis, --container-mounts; enroot, hook 10-home.sh"


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


def check_written_paths(
    groups: Mapping[str, WithEnvironment], facts: ClusterFacts, home: str, *, placeholders: Severity
) -> Iterator[Finding]:
    """Yield the paths that are placeholders, or that the container may not see, in texts of free form.

    These are keys that pass to an engine, variables, and what stands before a command.

    Parameters
    ----------
    groups
        The settings of the pools and of the stack, by their names.
    facts, home, placeholders
        As `check_cluster` has them.

    Yields
    ------
    Finding
        A warning for a path outside of every mount and of the folders that an image has of its own: it may
        hold another file itself.
    """
    for name, path in _written_paths(groups, facts):
        if path.startswith(_PLACEHOLDERS):
            yield Finding(
                placeholders, name, path, "a path of yours", "it stands for a reader's own", _EXAMPLE_FILE
            )
        elif facts.container_image is not None and not (is_of_image(path) or is_mounted(path, facts, home)):
            yield Finding(
                "warning",
                name,
                path,
                f"a path below a folder of {_mounts_text(facts, home)}, or one that the image has",
                _SEEN,
                _MOUNTS_SOURCE,
            )


def _written_paths(groups: Mapping[str, WithEnvironment], facts: ClusterFacts) -> Iterator[tuple[str, str]]:
    """Yield setting and path of every absolute path in keys of engines, variables and command prefixes."""
    for group, settings in groups.items():
        if isinstance(settings, Engine):
            yield from _paths_in(settings.passed_through, group)
        for variable, value in settings.env.items():
            for path in _listed_paths(value or ""):
                yield f"{group}.env.{variable}", path
    for role, words in facts.command_prefix:
        for index, word in enumerate(words):
            for path in _listed_paths(word.rpartition("=")[2]):
                yield f"cluster.command_prefix.{role}[{index}]", path


def _listed_paths(text: str) -> list[str]:
    """Return the absolute paths of a text that is one, or several with colons between them as in PATH."""
    return [path for path in text.split(":") if path.startswith("/")] if text.startswith("/") else []


def _paths_in(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of every absolute path in a key's value, also in JSON text."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        with suppress(ValueError):  # a template, say
            value = json.loads(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths_in(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _paths_in(inner, f"{name}[{index}]")
    elif isinstance(value, str) and value.startswith("/"):
        yield name, value


def _paths(facts: ClusterFacts) -> Mapping[str, str]:
    """Return the paths that steps use in the container, by their setting."""
    named = {"cluster.model_path": facts.model_path, "cluster.dynamo_venv": facts.dynamo_venv}
    return {name: path for name, path in named.items() if path is not None}


def example_values(facts: ClusterFacts, groups: Mapping[str, WithEnvironment]) -> Iterator[tuple[str, str]]:
    """Yield setting and value of what no cluster but the example has, texts of free form last."""
    yield from _example_facts(facts)
    for name, path in _written_paths(groups, facts):
        if path.startswith(_PLACEHOLDERS):
            yield name, path


def _example_facts(facts: ClusterFacts) -> Iterator[tuple[str, str]]:
    for name, value in EXAMPLE_CLUSTER.items():
        if getattr(facts, name) == value:
            yield f"cluster.{name}", value
    paths = {**_paths(facts), "cluster.container_image": facts.container_image or ""}
    mounts = (("cluster.container_mounts", mount) for mount in facts.container_mounts)
    for name, path in (*paths.items(), *mounts, *_paths_of_the_host(facts)):
        if path.startswith(_PLACEHOLDERS):
            yield name, path


def _paths_of_the_host(facts: ClusterFacts) -> Iterator[tuple[str, str]]:
    """Yield setting and path of every absolute path that sbatch and srun read, outside of the container."""
    yield "cluster.output", facts.output
    for variable, value in facts.srun_env.items():
        for path in _listed_paths(value or ""):
            yield f"cluster.srun_env.{variable}", path
    for name in ("srun_options", "extra_sbatch"):
        for index, word in enumerate(getattr(facts, name)):
            for path in _listed_paths(word.rpartition("=")[2]):
                yield f"cluster.{name}[{index}]", path


def _placeholders(facts: ClusterFacts, severity: Severity) -> Iterator[Finding]:
    """Yield the values that no cluster but the example has."""
    for name, value in _example_facts(facts):
        yield Finding(
            severity,
            name,
            value,
            "that of your cluster, or null" if name.endswith(("partition", "account")) else "a path of yours",
            "it is a value of the example: copy the facts of the cluster, and make them yours",
            _EXAMPLE_FILE,
        )


def _unmounted(facts: ClusterFacts, home: str) -> Iterator[Finding]:
    """Yield the paths that steps use and that the container does not see."""
    if facts.container_image is None:
        return
    for name, path in _paths(facts).items():
        if not path.startswith("/") or path.startswith(_PLACEHOLDERS) or is_mounted(path, facts, home):
            continue
        own = ", or null for the image's own" if name == "cluster.dynamo_venv" else ""
        yield Finding(
            "error",
            name,
            path,
            f"a path below a folder of {_mounts_text(facts, home)}{own}",
            _SEEN,
            _MOUNTS_SOURCE,
        )


def _mounts_text(facts: ClusterFacts, home: str) -> str:
    """Return the setting of the mounts, with the folders that a container sees through them."""
    mounts = ", ".join(mount_folders(facts)) or "none"
    if facts.container_mount_home:
        mounts += f"; the home as {ROOT_HOME if facts.container_remap_root else home}"
    return f"cluster.container_mounts ({mounts})"


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
