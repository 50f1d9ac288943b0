"""Describe the command line as tests call it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Tune = Callable[..., "subprocess.CompletedProcess[str]"]
"""`python -m tune` with words, to its end; keywords are environment variables."""


def names_in(folder: Path) -> set[str]:
    """Return the names of all entries of a folder."""
    return {path.name for path in folder.iterdir()}
