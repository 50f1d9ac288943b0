"""Count the lines of a log that say something new: what a process that only waits repeats is no progress."""

from __future__ import annotations

import re
from pathlib import Path

from tune.core.log_text import plain_text

_REMEMBERED_LINES = 4096
_LINE_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_LINE_END = re.compile(rb"[\r\n]+")
_DONE_OF_ALL = re.compile(r"\d+ ?%|\d+ ?/ ?\d+")
_NUMBER = re.compile(r"[0-9A-Fa-f]*\d[0-9A-Fa-f]*")


def shape_of(line: str) -> str:
    """Return a line without its numbers: times, counters and addresses, also hexadecimal ones.

    What is done of all stays, such as `12 %` or `3/16`, as nothing else of a progress bar may change.
    """
    text, done = plain_text(line), _DONE_OF_ALL.findall(line)
    return " ".join((_NUMBER.sub("", text), *done))


class NewLines:
    """Read a log as it grows, and count its lines whose shape is none of the last 4,096 different ones."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position, self._begun = 0, b""
        self._known: dict[int, None] = {}
        self._count = 0

    def count(self) -> int:
        """Return the number of new lines so far; a line that has no end yet does not count."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._position)
                while chunk := file.read(_CHUNK_BYTES):
                    self._position += len(chunk)
                    self._read(chunk)
        except OSError:
            pass
        return self._count

    def _read(self, chunk: bytes) -> None:
        *lines, begun = _LINE_END.split(self._begun + chunk)
        self._begun = begun[:_LINE_BYTES]
        for line in lines:
            shape = hash(shape_of(line[:_LINE_BYTES].decode("utf-8", "replace")))
            self._count += shape not in self._known
            self._known.pop(shape, None)
            self._known[shape] = None
            if len(self._known) > _REMEMBERED_LINES:
                del self._known[next(iter(self._known))]
