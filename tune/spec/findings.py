"""What a check found: a broken rule, or a choice that costs something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """`path` is a Hydra path; the other texts are for people. An error means the trial cannot run."""

    severity: Severity
    path: str
    found: str
    expected: str
    why: str
    source: str


def only_errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that forbid the trial."""
    return tuple(finding for finding in findings if finding.severity == "error")


def render_findings(findings: Iterable[Finding]) -> str:
    """One block a finding, errors first, an empty line between blocks; an empty string for no finding."""
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
