"""Define `evidence.json`: what the nodes of an attempt and their software were found to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel

_EVIDENCE_FILE = "evidence.json"
_BEGINNING = '{"evidence":'


class NodeEvidence(FrozenModel):
    """Hold what one node reports of itself (tune/deploy/collect_evidence.py).

    `transport` holds the variables that choose how KV caches travel, None where they were not asked for.
    `missing` holds what could not be found out, with the reason.
    """

    host: str
    versions: Mapping[str, str]
    hardware: Mapping[str, str]
    transport: Mapping[str, str] | None = None
    missing: Mapping[str, str]


class Evidence(FrozenModel):
    """Hold `raw/<attempt>/evidence.json`.

    `nodes` are the hosts in the order of their node indices. `versions`, `hardware` and `missing` say by name
    what the nodes found, or why they did not; where nodes differ, the text names them. `transport` has
    the values of the variables that choose how KV caches travel, by name; None where no node was asked.
    """

    nodes: tuple[str, ...]
    versions: Mapping[str, str]
    hardware: Mapping[str, str]
    transport: Mapping[str, str] | None = None
    missing: Mapping[str, str]


def read_node_reports(log: Path) -> list[NodeEvidence]:
    """Return what the nodes printed into `log`, leaving out what is torn."""
    text = log.read_text(errors="replace") if log.exists() else ""
    reports, start = [], text.find(_BEGINNING)
    while start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)  # srun may add to the line
            reports.append(NodeEvidence.model_validate(found["evidence"]))
        except ValueError:
            pass
        start = text.find(_BEGINNING, start + 1)
    return reports


def merge_reports(nodes: Sequence[str], reports: Sequence[NodeEvidence], silence: str) -> Evidence:
    """Merge what each node reports.

    Parameters
    ----------
    nodes
        The hosts of the attempt, by node index.
    reports
        What the nodes found.
    silence
        Why a node without a report has none.

    Returns
    -------
    Evidence
        One text a name, with the hosts where they differ.
    """
    by_host = {report.host: report for report in reports}
    known = [by_host[host] for host in dict.fromkeys(nodes) if host in by_host]
    silent = [host for host in dict.fromkeys(nodes) if host not in by_host]
    transport = {report.host: report.transport for report in known if report.transport is not None}
    missing = _agreed({report.host: report.missing for report in known})
    return Evidence(
        nodes=tuple(nodes),
        versions=_agreed({report.host: report.versions for report in known}),
        hardware=_agreed({report.host: report.hardware for report in known}),
        transport=_agreed(transport) if transport else None,
        missing=missing | ({f"report of {', '.join(silent)}": silence} if silent else {}),
    )


def _agreed(by_host: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return one text for each name; where hosts differ, each value with the hosts that have it."""
    agreed = {}
    for name in dict.fromkeys(name for values in by_host.values() for name in values):
        hosts: dict[str, list[str]] = {}
        for host, values in by_host.items():
            hosts.setdefault(values.get(name, "nothing"), []).append(host)
        texts = [f"{value} on {', '.join(named)}" for value, named in hosts.items()]
        agreed[name] = next(iter(hosts)) if len(hosts) == 1 else "; ".join(texts)
    return agreed


def write_evidence(attempt: Path, evidence: Evidence) -> None:
    """Write evidence.json into the folder `attempt`; raise ConfigurationError where that fails."""
    write_text(attempt / _EVIDENCE_FILE, evidence.model_dump_json(indent=1) + "\n")


def read_evidence(attempt: Path) -> Evidence | None:
    """Return the evidence of the attempt, None where there is none; raise ResumableError for a torn file."""
    return read_record(attempt / _EVIDENCE_FILE, Evidence)
