"""Define what one node of a cluster reports before a job of many nodes is submitted."""

from __future__ import annotations

from collections.abc import Mapping

from tune.manifest.argument_check import ArgumentAnswer
from tune.spec.base import FrozenModel
from tune.spec.findings import Finding

NODE_REPORT_FILE, PLAN_FOLDER = "node.json", "plan"
"""File that the node writes, and the folder beside it with the plan that it validates."""


class NodeReport(FrozenModel):
    """Hold the Python of a node, and what the software there says of a plan.

    `machine` is its architecture, such as aarch64. `unusable` holds the modules that a job imports and that
    cannot be imported there, with the reason. `answer` is None where the software was not asked, or did not
    answer; `no_answer` says why. `findings` are those on the checkpoint.
    """

    host: str
    machine: str
    python: str
    unusable: Mapping[str, str]
    answer: ArgumentAnswer | None = None
    no_answer: str | None = None
    findings: tuple[Finding, ...] = ()
