"""Follow growing logs as one stream of lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tune.core.log_text import plain_text

_PAUSE_S = 0.2
"""Seconds between two looks at the files."""


def follow_logs(
    files: Callable[[], Iterable[Path]], ended: Callable[[], bool], pause_s: float = _PAUSE_S
) -> Iterator[str]:
    """Yield the lines of several files as they are written, grouped under the name of their file.

    Parameters
    ----------
    files
        Returns the files, which may appear at any time.
    ended
        Returns True once nothing more is written.
    pause_s
        Seconds between two looks at the files.

    Yields
    ------
    str
        A line, or `==> name <==` before the lines of another file. A last line without a line end is yielded
        once all has ended.
    """
    position: dict[Path, int] = {}
    shown: Path | None = None
    over = False
    while not over:
        over = ended()  # before reading, so that no line written before the end is missed
        for path in files():
            lines, position[path] = _new_lines(path, position.get(path, 0), over)
            if lines and path != shown:
                shown = path
                yield f"==> {path.name} <=="
            yield from lines
        if not over:
            time.sleep(pause_s)


def _new_lines(path: Path, begin: int, to_the_end: bool) -> tuple[list[str], int]:
    """Return the complete lines from byte `begin` on as plain text, and where the next one begins."""
    with path.open("rb") as log:
        log.seek(begin)
        new = log.read()
    whole = new if to_the_end else new[: new.rfind(b"\n") + 1]
    lines = [plain_text(line) for line in whole.decode(errors="replace").splitlines()]
    return lines, begin + len(whole)
