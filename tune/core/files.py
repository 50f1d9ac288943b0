"""Write and read records atomically: a record is written to a temporary file, which is then renamed.

In a folder where others may write, they can put links. Nothing is written through a link: it would
overwrite whatever the link leads to.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from tune.core.record_versions import other_version_error
from tune.errors import ConfigurationError, ResumableError, TuneError

MOVE_FILE = "Move the file away and run the same command again: nothing else is lost."
"""What to do about a damaged record: what it held is read from other records, or measured again."""

MOVE_ATTEMPT = (
    "Move the attempt's folder (raw/N) away and run the same command again: the trial is measured anew."
)
"""What to do about a damaged file of a measurement."""

_Record = TypeVar("_Record", bound=BaseModel)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to `path` when the block ends; make missing folders.

    The error that `write_error` returns is raised if that fails. The name of the temporary file ends in
    `.tmp` and holds the id of this process, so two processes that write `path` do not mix.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


def no_link(path: str, flags: int) -> int:
    """Open a file that tune wrote before, for `opener` of `open`. Raises OSError (ELOOP) for a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically as UTF-8; raise what `write_error` returns if that fails."""
    with open_atomic(path) as file:
        file.write(text.encode())


def make_folder(path: Path) -> None:
    """Make the folder `path` and its missing parents; raise what `write_error` returns if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> TuneError:
    """Return the error for a path that cannot be written: ResumableError if the disk is full or failing."""
    if error.errno == errno.ELOOP:
        return ConfigurationError(
            f"{path}: is a link; expected a file that tune made, as nothing is written through a link. Find "
            "out who put it there, and remove it."
        )
    if error.errno == errno.EISDIR:
        return ConfigurationError(
            f"{path}: is a folder; expected a file that tune writes. Move the folder away, and run the same "
            "command again."
        )
    kind = ResumableError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else ConfigurationError
    return kind(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder with write permission and "
        "free space. Make it so, or name another one with runs_dir=... or reports_dir=..."
    )


def read_record(path: Path, kind: type[_Record], advice: str = MOVE_FILE) -> _Record | None:
    """Read one record.

    Parameters
    ----------
    path
        File of the record.
    kind
        Model that the file must validate against.
    advice
        Last sentence of the error: what to do about a damaged record.

    Returns
    -------
    _Record | None
        None if there is no file.

    Raises
    ------
    ResumableError
        If the file is damaged or has another shape.
    ConfigurationError
        If another version of tune wrote it.
    """
    content = b""
    try:
        content = path.read_bytes()
        return kind.model_validate_json(content)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        other_version = other_version_error(path, content, kind)
        if other_version:
            raise other_version from None
        raise ResumableError(
            f"{path}: not a readable {path.name} ({first_validation_error(error)}); expected what tune "
            f"wrote. {advice}"
        ) from error


def first_validation_error(error: OSError | ValidationError) -> str:
    """Return the first fault of a record that was read, and its place in the record."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    faults = error.errors(include_url=False, include_input=False)
    location = ".".join(str(part) for part in faults[0]["loc"])
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{location + ': ' if location else ''}{faults[0]['msg']}{more}"
