"""Find the nodes on which attempts of a study failed repeatedly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tune.records.folders import read_attempt

LIMIT = 2
"""Failures after which a node is avoided: one may be chance, and each further one costs a rack's bring-up."""


def nodes_to_avoid(study: Path) -> tuple[str, ...]:
    """Return the nodes that at least LIMIT attempts of the study in the folder `study` name as failed."""
    records = (read_attempt(path.parent) for path in study.glob("*/raw/*/attempt.json"))
    counts = Counter(node for record in records if record for node in record.failed_nodes or ())
    return tuple(sorted(node for node, count in counts.items() if count >= LIMIT))
