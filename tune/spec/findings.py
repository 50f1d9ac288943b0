"""Describe the findings of a check: a broken rule, or a choice that costs something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Hold one finding. `path` is a Hydra path; an error means that the trial cannot run."""

    severity: Severity
    path: str
    found: str
    expected: str
    why: str
    source: str


def only_errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that forbid the trial."""
    return tuple(finding for finding in findings if finding.severity == "error")


def render_findings(findings: Iterable[Finding]) -> str:
    """Render one block a finding, errors first, with an empty line between two; empty without findings."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    return "\n".join(_block(finding) for finding in ordered)


def _block(finding: Finding) -> str:
    facts = (
        ("found", finding.found),
        ("expected", finding.expected),
        ("why", finding.why),
        ("source", finding.source),
    )
    lines = [f"{finding.severity}: {finding.path}", *(f"  {name:<8}  {text}" for name, text in facts)]
    return "\n".join(lines) + "\n"
