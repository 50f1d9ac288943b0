"""Test the comparison of predictions of an aggregated worker with measurements, and its rows in the notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "docs" / "notes" / "gpu-predictions.md"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "last"),
    [
        ([], "capacity, queries/s: 11.22 / 16.32  -31%"),
        (["--rack", "h200_gaps"], "capacity, queries/s: 13.59 / 16.32  -17%"),
        (["--gaps"], "2.5 ms + 37 us a sequence + 5.9 ms without a graph, none off by more than 0.9 ms"),
    ],
)
def test_the_notes_have_every_row_that_is_printed(words: list[str], last: str) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_predictions.py", "--aggregated", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *rows, end = done.stdout.splitlines()
    assert end == last
    assert len(rows) > 6
    notes = NOTES.read_text(encoding="utf-8")
    for row in rows:
        _, _, *cells = row.split("|")  # the notes say in words what a trial is
        assert "|".join(cells) in notes
