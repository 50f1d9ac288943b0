"""Records reach their name whole: written beside it first, then renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tune.errors import FixCommand


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open `path`.tmp for writing and rename it to `path` when the block ends; makes missing folders.

    Raises FixCommand when the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 through a temporary name. Raises FixCommand when the folder cannot be written."""
    with replacing(path) as file:
        file.write(text.encode())


def unwritable(path: Path, error: OSError) -> FixCommand:
    """The one message for a place that takes no records."""
    return FixCommand(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder with write permission and "
        "free space. Make it so, or name another one with runs_dir=... or reports_dir=..."
    )
