"""Read single values of LoadGen's logs, whatever a log holds in their place."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """Return a whole number, None for anything else."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def flag(value: Any) -> bool | None:
    """Return a truth value in any of LoadGen's spellings, None for anything else."""
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        str(value).lower()
    )


def unlisted(text: str) -> str:
    """Return `text` without the bullets of a list that LoadGen puts into one line."""
    return " ".join(text.replace(" * ", " ").split())


def string(value: Any) -> str | None:
    """Return a stripped text, None for anything else."""
    return value.strip() if isinstance(value, str) else None
