"""Write docs/reference/settings.md, or the file given as argument, from types and configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tune.cli.settings_reference import render_markdown

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"


def shipped_values() -> dict[str, Any]:
    """Return the composed configuration without overrides, as `python -m tune --cfg job` prints it."""
    command = [sys.executable, "-m", "tune", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values: dict[str, Any] = yaml.safe_load(done.stdout)
    return values


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    page.write_text(render_markdown(shipped_values()), encoding="utf-8")
