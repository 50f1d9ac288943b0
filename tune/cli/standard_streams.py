"""Keep the standard streams usable: closed by the shell, on a full disk, and in any encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

_ASCII = {"×": "x", "—": "-", "–": "-", "±": "+-", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "µ": "u"}
"""ASCII for characters that decomposition does not lead to."""

_ERRORS = "tune-ascii"


class _Persistent(io.FileIO):
    """Write to a file descriptor; once that fails, remember why and go on, so that a study goes on."""

    failure: OSError | None = None

    def write(self, data: object) -> int:
        """Write bytes, or drop them where the file takes none. A closed pipe raises BrokenPipeError."""
        assert isinstance(data, bytes | bytearray | memoryview)
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failure = self.failure or error
            return len(data)


def make_streams_safe() -> None:
    """Let stdout and stderr take any text, whatever became of them.

    A closed stream leads nowhere, and no file that is opened later gets its descriptor. Text that cannot be
    written is dropped (`lost_output` says why). Characters that an encoding lacks are replaced by ASCII.
    """
    codecs.register_error(_ERRORS, _replacement)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
    sys.stdout = _safe(sys.stdout, 1)
    sys.stderr = _safe(sys.stderr, 2)


def lost_output() -> OSError | None:
    """Flush stdout; return why some of what was printed there could not be written, None where all was."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Persistent) else None


def _safe(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream in place of `stream`; one that is no standard stream gets an error handler."""
    if stream is None:
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if stream.fileno() != descriptor:
        stream.reconfigure(errors=_ERRORS)
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Persistent(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that an encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(_ascii(character) for character in characters), error.end


def _ascii(character: str) -> str:
    """Return ASCII for one character: a likeness, its letter without accents, or a question mark."""
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _ASCII.get(character) or plain or "?"
