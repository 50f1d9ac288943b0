"""Render the process in which every node reports what it and its software are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tune.manifest.process import PLAN_DIR, Process, log_path

EVIDENCE_SCRIPT = "collect_evidence.py"
_NAME = "evidence"

_LIBRARIES = ("torch", "nixl")
"""Distributions whose versions are reported beside those of the engine and of Dynamo."""


def evidence_process(check: Process, nodes: int, packages: Iterable[str]) -> Process:
    """Return the process that reports on all nodes, one task on each.

    `check` is a process with the Python, image and variables of a worker. `packages` are the distributions
    whose versions matter.
    """
    return replace(
        check,
        name=_NAME,
        node_index=0,
        gpus=tuple((node, 0) for node in range(nodes)),
        mpi=False,
        argv=(check.argv[0], f"{PLAN_DIR}/{EVIDENCE_SCRIPT}", *packages, *_LIBRARIES),
        log=log_path(_NAME),
    )
