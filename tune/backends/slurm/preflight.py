"""Query a cluster before a job is submitted, and return every finding at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from tune.backends.slurm.commands import PROGRAMS, SlurmUnavailable, run_command
from tune.checkpoint.checkpoint_files import check_checkpoint
from tune.deploy.checkpoint_facts import expected_checkpoint
from tune.deploy.job_script import sbatch_options
from tune.errors import ConfigurationError
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import Finding, only_errors, render_findings
from tune.spec.mounts import host_path
from tune.spec.slurm_time import duration_s, time_limit_s
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class Partition:
    """Hold a partition: its number of `nodes`, and the limits of a job; None stands for no limit."""

    name: str
    default: bool
    state: str
    nodes: int | None
    max_nodes: int | None
    max_time_s: float | None


def require_cluster(facts: ClusterFacts, spec: TrialSpec) -> None:
    """Raise ConfigurationError, with every finding, if the cluster cannot run a job of `spec`."""
    broken = only_errors(check_partition(facts, spec))
    if broken:
        raise ConfigurationError(
            f"{render_findings(broken)}\nThe cluster cannot run this; nothing was submitted."
        )


def check_partition(facts: ClusterFacts, spec: TrialSpec) -> tuple[Finding, ...]:
    """Return findings on programs, controller, partition (also a hidden one), size and time limit."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        expected = "a machine from which jobs are submitted (a login node), or cluster=sim"
        why = "jobs are submitted, watched and cancelled with Slurm's own programs"
        found = f"no {', '.join(missing)} on the PATH"
        return (_error("cluster", found, expected, why, "Slurm, sbatch(1)"),)
    try:
        partitions = parse_partitions(
            run_command(("scontrol", "--all", "--oneliner", "show", "partition"))[0]
        )
    except SlurmUnavailable as error:
        why = "without its controller Slurm takes no job"
        return (_error("cluster", str(error), "an answer of slurmctld", why, "Slurm, scontrol(1)"),)
    return tuple(_misfits(facts, spec.hardware.nodes, partitions))


def check_slurm(facts: ClusterFacts, spec: TrialSpec) -> tuple[Finding, ...]:
    """Return all findings: those of `check_partition`, on paths of this machine, and on the checkpoint.

    A checkpoint that this machine does not see is checked on a node.

    Where none of them forbids the job, sbatch is asked about it with --test-only, which submits nothing.
    """
    expected = expected_checkpoint(spec, facts)
    visible = expected is not None and Path(expected.folder).expanduser().exists()
    checkpoint = check_checkpoint(expected) if expected and visible else ()
    findings = (*check_partition(facts, spec), *_missing_paths(facts), *checkpoint)
    return findings if only_errors(findings) else (*findings, *_rejected(facts, spec))


def parse_partitions(text: str) -> dict[str, Partition]:
    """Return the partitions that `scontrol --oneliner show partition` printed, by name."""
    partitions = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" not in fields:
            continue
        partition = Partition(
            name=fields["PartitionName"],
            default=fields.get("Default") == "YES",
            state=fields.get("State", ""),
            nodes=_count(fields.get("TotalNodes", "")),
            max_nodes=_count(fields.get("MaxNodes", "")),
            max_time_s=duration_s(fields.get("MaxTime", "")),
        )
        partitions[partition.name] = partition
    return partitions


def _count(text: str) -> int | None:
    """Return the number in `text`; None for UNLIMITED and for anything else."""
    return int(text) if text.isdecimal() else None


def _misfits(facts: ClusterFacts, nodes: int, partitions: Mapping[str, Partition]) -> Iterator[Finding]:
    """Yield findings on the partitions that the job names, or on the cluster's default.

    Slurm takes one that fits of several partitions: what the others lack is a warning then. It takes no name
    that it does not know. Source: Slurm, sbatch(1), --partition; slurm.conf(5), EnforcePartLimits.
    """
    default = next((partition.name for partition in partitions.values() if partition.default), None)
    requested = facts.partition.split(",") if facts.partition else [default] if default else []
    if not requested:
        yield _error(
            "cluster.partition",
            "none",
            f"one of {', '.join(partitions)}",
            "the cluster has no default",
            _SINFO,
        )
    unknown = [name for name in requested if name not in partitions]
    for name in unknown:
        near = get_close_matches(name, partitions, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        expected = f"one of {', '.join(sorted(partitions)) or 'none: the cluster shows none to you'}{hint}"
        yield _error("cluster.partition", name, expected, "the cluster has no such partition", _SINFO)
    found = [tuple(_too_small(facts, nodes, partitions[name])) for name in requested if name in partitions]
    fits = not unknown and any(not only_errors(findings) for findings in found)
    for finding in (finding for findings in found for finding in findings):
        yield replace(finding, severity="warning") if fits else finding


def _too_small(facts: ClusterFacts, nodes: int, partition: Partition) -> Iterator[Finding]:
    """Yield findings on a partition's size, limits and state."""
    if partition.nodes is not None and nodes > partition.nodes:
        why = f"partition {partition.name} has no more: it would wait for ever or be refused"
        yield _error("hardware.nodes", str(nodes), f"at most {partition.nodes}", why, _SINFO)
    elif partition.max_nodes is not None and nodes > partition.max_nodes:
        yield _over(
            facts,
            partition.name,
            "PartitionMaxNodes",
            path="hardware.nodes",
            found=str(nodes),
            expected=f"at most {partition.max_nodes}",
        )
    limit_s = time_limit_s(facts.time_limit)
    if partition.max_time_s is not None and limit_s is not None and limit_s > partition.max_time_s:
        yield _over(
            facts,
            partition.name,
            "PartitionTimeLimit",
            path="cluster.time_limit",
            found=facts.time_limit,
            expected=f"at most {partition.max_time_s / 60:g} minutes",
        )
    if partition.state != "UP":
        yield Finding(
            "warning",
            "cluster.partition",
            f"{partition.name} is {partition.state}",
            "UP",
            "jobs wait until it is, or are refused",
            _SINFO,
        )


def _over(facts: ClusterFacts, partition: str, flag: str, *, path: str, found: str, expected: str) -> Finding:
    """Return the finding for a limit of the partition; a warning where a QOS may have the lifting `flag`.

    Source: Slurm, sacctmgr(1), QOS flags.
    """
    if facts.qos is None:
        expected += f", or in cluster.qos a QOS with the flag {flag}"
        why = f"partition {partition} gives a job no more: it would wait for ever or be refused"
        return _error(path, found, expected, why, _SINFO)
    why = f"partition {partition} gives a job no more, unless QOS {facts.qos} has the flag {flag}"
    return Finding("warning", path, found, expected, why, _SINFO)


def _rejected(facts: ClusterFacts, spec: TrialSpec) -> Iterator[Finding]:
    """Yield the refusal of sbatch, if it refuses the job."""
    options = sbatch_options(facts, spec.hardware.nodes, spec.hardware.gpus_per_node)
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    try:
        run_command(("sbatch", "--test-only", *arguments), stdin="#!/bin/sh\n")
    except SlurmUnavailable as error:
        why = "Slurm's own words to the same job with --test-only; nothing was submitted"
        yield _error("cluster", str(error), "a job that sbatch accepts", why, "Slurm, sbatch(1), --test-only")


def _missing_paths(facts: ClusterFacts) -> Iterator[Finding]:
    """Yield a warning for each path in the cluster's facts that does not exist on this machine."""
    named = {
        "model_path": host_path(facts.model_path, facts),
        "container_image": facts.container_image,
        "dynamo_venv": facts.dynamo_venv,
    }
    for name, path in named.items():
        if path and path.startswith(("/", "~")) and not Path(path).expanduser().exists():
            yield Finding(
                "warning",
                f"cluster.{name}",
                path,
                "a path that exists",
                "nothing is there on this machine; on the cluster's nodes it has to be",
                "this machine's file system",
            )


_SINFO = "Slurm, scontrol show partition"


def _error(path: str, found: str, expected: str, why: str, source: str) -> Finding:
    """Return a finding that forbids the job."""
    return Finding("error", path, found, expected, why, source)
