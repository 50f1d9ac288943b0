"""Check what the facts of a cluster do to the workers of a trial on their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tune.deploy.launch_command import start_delays_s
from tune.engines.registry import engine_of
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import Finding
from tune.spec.split import place_workers
from tune.spec.trial import TrialSpec

_SHARED_MEMORY = ("gb200", "gb300")
"""Beginnings of `hardware.name` where the memory of a GPU is a NUMA node of the host."""


def check_nodes(spec: TrialSpec, facts: ClusterFacts) -> tuple[Finding, ...]:
    """Return where host memory may land on GPUs, and workers that start too late to be waited for."""
    return (*_unbound_memory(spec, facts), *_late_workers(spec, facts))


def _unbound_memory(spec: TrialSpec, facts: ClusterFacts) -> Iterator[Finding]:
    shared = spec.hardware.name.lower().startswith(_SHARED_MEMORY)
    if not shared or not engine_of(spec).computes_tokens:
        return
    roles = spec.split.roles
    prefixes = {role: getattr(facts.command_prefix, role) for role in roles}
    unbound = [role for role in roles if "numactl" not in {PurePosixPath(w).name for w in prefixes[role]}]
    if unbound:
        yield Finding(
            "warning",
            "cluster.command_prefix",
            f"no numactl before the command of {' and '.join(unbound)} workers on {spec.hardware.name}",
            "numactl -m 0,1, unless the driver manages GPU memory itself (CDMM mode)",
            "the memory of a GPU is a NUMA node there, and the kernel may place pages of the host in it",
            "TensorRT-LLM, examples/wide_ep/README.md; NVIDIA, srt-slurm, its backend for it",
        )


def _late_workers(spec: TrialSpec, facts: ClusterFacts) -> Iterator[Finding]:
    """Yield an error where the last worker of a node starts when nobody waits for it any more.

    `deadlines.quiet_s` is no limit here: a rank that waits for its turn writes to its log (rank.sh).
    """
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split) or ()
    gap_s = max(facts.load_stagger_s, engine_of(spec).start_gap_s(spec))
    last_s, ready_s = max(start_delays_s(gap_s, placed).values(), default=0.0), facts.deadlines.ready_s
    if last_s >= ready_s:
        yield Finding(
            "error",
            "cluster.load_stagger_s",
            f"{gap_s:g} s between two workers of a node, the last of which starts after {last_s:g} s",
            f"a last start before cluster.deadlines.ready_s, {ready_s:g} s",
            "the deployment fails before its last worker starts",
            "tune/orchestrator/readiness.py",
        )
