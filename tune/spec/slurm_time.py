"""Read Slurm's notation of durations."""

from __future__ import annotations

import re


def duration_s(text: str) -> float | None:
    """Return the seconds of one of Slurm's times; None for UNLIMITED, INVALID and any text that is no time.

    Its forms are M, M:S, H:M:S, D-H, D-H:M and D-H:M:S. Source: sbatch(1), --time.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not match:
        return None
    days, first, second, third = (int(part) if part else 0 for part in match.groups())
    if match[1] is not None:
        return float(((days * 24 + first) * 60 + second) * 60 + third)
    if match[4] is not None:
        return float((first * 60 + second) * 60 + third)
    return float(first * 60 + second)
