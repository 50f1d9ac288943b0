"""Split a report's page as a browser splits it."""

from __future__ import annotations

import json
from functools import cached_property
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Hold the scripts of a page by id or order, its visible text and the addresses that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.loads: list[str] = []
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag in ("script", "style"):
            self._script = named.get("id") or f"{tag} {len(self.scripts)}"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data

    @cached_property
    def table(self) -> dict[str, Any]:
        """Return the data of the table of trials."""
        data: dict[str, Any] = json.loads(self.scripts["data"])
        return data

    @cached_property
    def trials(self) -> list[dict[str, Any]]:
        """Return the rows of the table of trials, by field."""
        return [dict(zip(self.table["fields"], row, strict=True)) for row in self.table["rows"]]
