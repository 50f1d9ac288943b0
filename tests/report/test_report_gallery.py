"""Test that the reports kept as examples have the sections, verdicts and columns that this version writes."""

from __future__ import annotations

import csv
import re
from html import unescape
from pathlib import Path

import pytest

from tune.report.ranking_csv import csv_columns
from tune.report.trial_status import TRIAL_STATUS_MEANING, TRIAL_STATUS_WORDS

GOLDEN = Path(__file__).parent / "golden_page.html"
SECTION = re.compile(r'<section id="(\w+)"')
FACT = re.compile(r"<div><dt>([^<]+)</dt>")


@pytest.mark.parametrize("name", ["split", "cap"])
def test_kept_report_is_of_this_version(root: Path, name: str) -> None:
    """Where this fails, the commands in reports/README.md make the reports and their pictures anew."""
    folder = root / "reports" / "gallery" / name
    page, golden = (path.read_text(encoding="utf-8") for path in (folder / "index.html", GOLDEN))
    assert set(SECTION.findall(golden)) <= set(SECTION.findall(page))
    answers = [text[text.index('id="answer"') : text.index('id="figures"')] for text in (golden, page)]
    expected, found = (set(FACT.findall(answer)) for answer in answers)
    assert expected <= found
    text = unescape(page)
    for status, meaning in TRIAL_STATUS_MEANING.items():
        assert f"<div><dt>{TRIAL_STATUS_WORDS[status]}</dt><dd>{meaning}</dd></div>" in text

    with (folder / "ranking.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        named = {column.name for column in csv_columns()}
        settings = [column for column in rows.fieldnames or () if column not in named]
        assert {row["verdict"] for row in rows} <= set(TRIAL_STATUS_WORDS.values())
    assert settings.pop() == "overrides"
    assert settings
    assert all(column.startswith("param.") for column in settings)
