"""Write and read records atomically: a record is written to a temporary file, which is then renamed.

In a folder where others may write, they can put links. Nothing is written through a link: it would
overwrite whatever the link leads to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

MOVE_BACK = (
    "Move it back, or bring its disk back, and run the same command again: what is on record there is reused."
)
"""What to do about a folder that was moved away while a command used it."""

_Record = TypeVar("_Record", bound=BaseModel)


@contextmanager
def open_atomic(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to `path` when the block ends.

    The folder of `path` is made where it is missing, but none above it: a study that somebody moved away must
    not grow again. The error that `write_error` returns is raised if that fails. The name of the temporary
    file ends in `.tmp` and holds the id of this process, so two processes that write `path` do not mix. A
    `durable` file outlives a loss of power once the block has ended: file and folder are on the disk then,
    which takes milliseconds. Source: fsync(2).
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # renamed, or never made
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Write the entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_link(path: str, flags: int) -> int:
    """Open a file that tune wrote before, for `opener` of `open`. Raises OSError (ELOOP) for a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def regular_file(path: str, flags: int) -> int:
    """Open a file for reading, for `opener` of `open`; raise OSError for what is none.

    A named pipe would keep its reader waiting for ever. Source: open(2), O_NONBLOCK; fifo(7).
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "no regular file", path)


def read_file(path: Path) -> bytes | None:
    """Return the content of a file, None where there is none.

    Raises OSError for what cannot be read, is no file, or is a link that leads nowhere.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            return file.read()
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "a link that leads nowhere", str(path)) from None
        return None


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text as UTF-8.

    Parameters
    ----------
    path
        The file; its folder is made where it is missing (open_atomic).
    text
        Its content.
    durable
        Whether it outlives a loss of power (open_atomic).

    Raises
    ------
    TuneError
        What `write_error` returns, if that fails.
    """
    with open_atomic(path, durable=durable) as file:
        file.write(text.encode())


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make the folder `path`, with `parents` those above it too; raise what `write_error` returns on failure.

    Without `parents` a missing folder above is an error, as in `open_atomic`.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> TuneError:
    """Return the error for a path that cannot be written.

    It is a ResumableError where the disk is full or failing, or the folder is gone.
    """
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
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return ResumableError(
            f"{path}: cannot be written, as its folder is gone; expected it to stay where it is while this "
            f"command runs. {MOVE_BACK}"
        )
    kind = ResumableError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else ConfigurationError
    return kind(
        f"{path}: cannot be written ({error.strerror or error}); expected a folder with write permission and "
        "free space. Make it so, or name another one with runs_dir=..., reports_dir=... or to=..."
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
    content: bytes | None = b""
    try:
        content = read_file(path)
        return None if content is None else kind.model_validate_json(content)
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, ValidationError) as error:
        other_version = other_version_error(path, content or b"", kind)
        if other_version:
            raise other_version from None
        raise ResumableError(
            f"{path}: not a readable {path.name} ({first_validation_error(error)}); expected what tune "
            f"wrote. {advice}"
        ) from error


def unreadable(path: Path) -> ResumableError:
    """Return the error for a file or folder of a study that this user may not read."""
    return ResumableError(
        f"{path}: cannot be read (Permission denied); expected a record that this user may read. Have mode "
        "and owner set right, up to the folder of the study, and run the same command again: nothing is lost."
    )


def first_validation_error(error: OSError | ValidationError) -> str:
    """Return the first fault of a record that was read, and its place in the record."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    faults = error.errors(include_url=False, include_input=False)
    location = ".".join(str(part) for part in faults[0]["loc"])
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{location + ': ' if location else ''}{faults[0]['msg']}{more}"
