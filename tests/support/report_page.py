"""Read the HTML page of a report as a browser splits it."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.page import write_report


def unpack(packed: str) -> str:
    """Return the text that the page holds compressed, as base64."""
    return gzip.decompress(base64.b64decode(packed)).decode()


class Page(HTMLParser):
    """Hold scripts by id or position, the visible text, and every address that the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.loads: list[str] = []
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record addresses, and open a script or style."""
        named = dict(attrs)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag in ("script", "style"):
            self._script = named.get("id") or f"{tag} {len(self.scripts)}"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        """Close a script or style."""
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        """Add text to the open script or to the visible text."""
        if self._script is None:
            self.text += data.replace("\u00a0", " ")
        else:
            self.scripts[self._script] += data

    @cached_property
    def table(self) -> dict[str, Any]:
        """Return the data of the table of trials."""
        data: dict[str, Any] = json.loads(unpack(self.scripts["data"]))
        return data

    @cached_property
    def trials(self) -> list[dict[str, Any]]:
        """Return the rows of the table as dictionaries."""
        return [dict(zip(self.table["fields"], row, strict=True)) for row in self.table["rows"]]


def page_of(folder: Path, record: StudyRecord, outcomes: list[Outcome]) -> Page:
    """Write the report of a study into `folder` and read its page."""
    return Page(write_report(folder, record, outcomes).read_text(encoding="utf-8"))
