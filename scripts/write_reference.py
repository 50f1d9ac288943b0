"""Write the generated pages of docs/reference there, or into the folder given as argument."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tune.cli.failures_reference import render_failures
from tune.cli.metrics_reference import render_metrics
from tune.cli.settings_reference import render_markdown
from tune.report.ranking_csv import render_columns
from tune.report.run_checks_page import render_checks

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def shipped_values() -> dict[str, Any]:
    """Return the composed configuration without overrides, as `python -m tune --cfg job` prints it."""
    command = [sys.executable, "-m", "tune", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values: dict[str, Any] = yaml.safe_load(done.stdout)
    return values


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    (folder / "settings.md").write_text(render_markdown(shipped_values()), encoding="utf-8")
    (folder / "metrics.md").write_text(render_metrics(), encoding="utf-8")
    (folder / "failures.md").write_text(render_failures(), encoding="utf-8")
    (folder / "ranking.md").write_text(render_columns(), encoding="utf-8")
    (folder / "run-checks.md").write_text(render_checks(), encoding="utf-8")
