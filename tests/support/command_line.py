"""Call the command line and its actions, and name what they leave."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tune.cli.import_command import import_action
from tune.config import compose_overrides

Tune = Callable[..., "subprocess.CompletedProcess[str]"]
"""`python -m tune` with words, to its end; keywords are environment variables."""


def names_in(folder: Path) -> set[str]:
    """Return the names of all entries of a folder."""
    return {path.name for path in folder.iterdir()}


def run_import(recipe: Path, to: Path) -> None:
    """Import the recipe of a file into the folder `to`, inside this process."""
    import_action(compose_overrides(("action=import", f"recipe={recipe}", f"to={to}")))
