"""Write and read `held.json`: how long an attempt held its GPUs, the end of its processes included."""

from __future__ import annotations

from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat

_FILE = "held.json"


class HeldTime(FrozenModel):
    """Hold the seconds from the start of an attempt until nothing held its GPUs for it any more.

    That is when all its processes had ended, or when the next attempt began on its nodes. The file is written
    after attempt.json; without it nobody knows, or the GPUs are still held.
    """

    free_after_s: NonNegativeFloat


def write_free_after(attempt: Path, free_after_s: float) -> None:
    """Write held.json into the folder `attempt`; raise as `write_text` does."""
    write_text(attempt / _FILE, HeldTime(free_after_s=free_after_s).model_dump_json() + "\n")


def read_free_after(attempt: Path) -> float | None:
    """Return for how many seconds an attempt held its GPUs, None where that is not known.

    Raises ResumableError for a torn file.
    """
    held = read_record(attempt / _FILE, HeldTime)
    return held.free_after_s if held else None
