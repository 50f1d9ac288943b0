"""Numba's njit with its type kept: the serving loops are compiled once and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Machine code of `function`, without fastmath: the same bits as NUMBA_DISABLE_JIT=1 gives. Threads may
    run it side by side."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder that a cache could be written to, as in a read-only container
        return cast(Function, njit(nogil=True)(function))


def is_cold(function: Callable[..., object]) -> bool:
    """Whether the first call of a compiled function has to compile it, which takes seconds."""
    stats = getattr(function, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT=1
        return False
    return not (stats.cache_path and any(Path(stats.cache_path).glob(f"*.{function.__name__}-*.nbi")))
