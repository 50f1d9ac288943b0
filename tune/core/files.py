"""Records reach their name whole: written beside it first, then renamed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from tune.core.record_versions import other_version_error
from tune.errors import ConfigurationError, ResumableError, TuneError

RERUN = "Move the file away, or run the trial again with rerun=true: nothing is deleted."

_Record = TypeVar("_Record", bound=BaseModel)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open `path`.tmp for writing and rename it to `path` when the block ends; makes missing folders.

    Raises ConfigurationError when the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 through a temporary name. Raises as `unwritable` says."""
    with open_atomic(path) as file:
        file.write(text.encode())


def make_folder(path: Path) -> None:
    """Make `path` and what is missing above it. Raises as `unwritable` says."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> TuneError:
    """The one message for a place that takes no records: ConfigurationError, or ResumableError where the disk is full."""
    kind = ResumableError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else ConfigurationError
    return kind(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder with write permission and "
        "free space. Make it so, or name another one with runs_dir=... or reports_dir=..."
    )


def read_record(path: Path, kind: type[_Record], advice: str = RERUN) -> _Record | None:
    """The record in the file `path`, None where there is none.

    Raises ResumableError, with `advice`, where it is torn or of another shape, and ConfigurationError where
    another version of tune wrote it.
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
            f"{path}: not a readable {path.name} ({first_validation_error(error)}); expected what tune wrote. {advice}"
        ) from error


def first_validation_error(error: OSError | ValidationError) -> str:
    """What is wrong with a record that was read, and where in it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    faults = error.errors(include_url=False, include_input=False)
    backend = ".".join(str(part) for part in faults[0]["loc"])
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{backend + ': ' if backend else ''}{faults[0]['msg']}{more}"
