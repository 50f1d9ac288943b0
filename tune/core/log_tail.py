"""Logs that grow, as one stream of lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PAUSE_S = 0.2


def follow_logs(
    files: Callable[[], Iterable[Path]], ended: Callable[[], bool], pause_s: float = _PAUSE_S
) -> Iterator[str]:
    """Lines of `files` as they are written, those of one file together under its name, until `ended`.

    Files may appear at any time. A last line without an end comes when all has ended.
    """
    read: dict[Path, int] = {}
    shown: Path | None = None
    over = False
    while not over:
        over = ended()  # asked first, so that what was written before the end is still read
        for path in files():
            lines, read[path] = _since(path, read.get(path, 0), over)
            if lines and path != shown:
                shown = path
                yield f"==> {path.name} <=="
            yield from lines
        if not over:
            time.sleep(pause_s)


def _since(path: Path, begin: int, to_the_end: bool) -> tuple[list[str], int]:
    """The whole lines from byte `begin` on, and where the next one begins."""
    with path.open("rb") as log:
        log.seek(begin)
        new = log.read()
    whole = new if to_the_end else new[: new.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), begin + len(whole)
