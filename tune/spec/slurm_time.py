"""Read Slurm's notation of durations."""

from __future__ import annotations

import math
import re

_ENDLESS = ("-1", "infinite", "unlimited")


def duration_s(text: str) -> float | None:
    """Return the seconds of one of Slurm's times; None for UNLIMITED, INVALID and any text that is no time.

    Its forms are M, M:S, H:M:S, D-, D-H, D-H:M and D-H:M:S. Source: sbatch(1), --time; Slurm,
    src/common/parse_time.c, time_str2secs.
    """
    whole = text.strip()
    whole += "0" if whole.endswith("-") else ""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", whole, re.ASCII)
    if not match:
        return None
    days, first, second, third = (int(part) if part else 0 for part in match.groups())
    if match[1] is not None:
        return float(((days * 24 + first) * 60 + second) * 60 + third)
    if match[4] is not None:
        return float((first * 60 + second) * 60 + third)
    return float(first * 60 + second)


def time_limit_s(text: str) -> float | None:
    """Return the seconds of a time limit, infinity for none at all; None for a text that is no time limit.

    No limit is 0, -1, INFINITE or UNLIMITED. Source: sbatch(1), --time; Slurm, time_str2secs.
    """
    if text.strip().lower() in _ENDLESS:
        return math.inf
    limit_s = duration_s(text)
    return math.inf if limit_s == 0 else limit_s
