"""Damage files of a study as a crash, a full disk or a careless hand does."""

from __future__ import annotations

from pathlib import Path


def tear(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
