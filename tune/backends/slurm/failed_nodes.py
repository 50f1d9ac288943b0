"""Find the nodes on which attempts of a study failed repeatedly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tune.records.folders import read_attempt

LIMIT = 2
"""Failures after which a node is avoided: one may be chance, and each further one costs a rack's bring-up."""


class AvoidedNodes:
    """Look for the nodes that a study avoids; `say` receives their names whenever there are further ones."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._named: tuple[str, ...] = ()

    def of(self, study: Path) -> tuple[str, ...]:
        """Return the nodes that at least LIMIT attempts of the study in the folder `study` name as failed."""
        avoided = nodes_to_avoid(study)
        if avoided != self._named:
            names = ",".join(avoided)
            self._say(
                f"{names} failed twice or more in this study: its further jobs avoid it. "
                f"cluster.exclude=[{names}] does so elsewhere."
            )
            self._named = avoided
        return avoided


def nodes_to_avoid(study: Path) -> tuple[str, ...]:
    """Return the nodes that at least LIMIT attempts of the study in the folder `study` name as failed."""
    records = (read_attempt(path.parent) for path in study.glob("*/raw/*/attempt.json"))
    counts = Counter(node for record in records if record for node in record.failed_nodes or ())
    return tuple(sorted(node for node, count in counts.items() if count >= LIMIT))
