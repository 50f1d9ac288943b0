"""Find folders for what can be made again, and tell when the code that made it has changed."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def user_cache_folder(name: str) -> Path | None:
    """Return tune's folder `name` below $XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "tune" / name
    except RuntimeError:
        return None


@cache
def source_digest(*packages: str, root: Path = ROOT) -> str:
    """Return a digest, in 64 hexadecimal digits, of the sources of `packages` of tune below `root`."""
    digest = hashlib.sha256()
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.relative_to(root)}:{len(source)}\n".encode() + source)
    return digest.hexdigest()
