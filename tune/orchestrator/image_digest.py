"""Read the digest of a job's image while its workers start."""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path


class ImageDigest:
    """Read the SHA-256 of a squash file in the background: such files have tens of GB."""

    def __init__(self) -> None:
        self._sha256: str | None = None
        self._thread: threading.Thread | None = None

    def begin(self, image: str | None) -> None:
        """Begin to read `image`, as pyxis is given it; nothing is read where that is no path."""
        if image is not None and image.startswith("/"):
            self._thread = threading.Thread(target=self._read, args=(Path(image),), daemon=True)
            self._thread.start()

    def result(self, *, wait: bool) -> str | None:
        """Return the digest in hexadecimal digits, None where no file was read to its end.

        With `wait` its end is waited for.
        """
        if self._thread and wait:
            self._thread.join()
        return self._sha256

    def _read(self, file: Path) -> None:
        try:
            state = file.stat()
            self._sha256 = _sha256(file, state.st_size, state.st_mtime_ns)
        except OSError:  # the record has no digest then; srun itself names an image that it cannot read
            return


@lru_cache(maxsize=8)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Return the digest of `file`, read once in a process for each size and time of change."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
