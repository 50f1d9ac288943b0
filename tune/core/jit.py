"""Compile numeric loops with Numba; the machine code is cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called; its type stays that of the function.

    Without fastmath, results have the bits that plain Python (NUMBA_DISABLE_JIT=1) gives. The interpreter
    lock is released, so threads may run it in parallel.
    """
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder that a cache could be written to, as in a read-only container
        return cast(Function, njit(nogil=True)(function))


def is_cold(function: Callable[..., object]) -> bool:
    """Return whether the first call of a compiled function has to compile it, which takes seconds."""
    stats = getattr(function, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT=1
        return False
    return not (stats.cache_path and any(Path(stats.cache_path).glob(f"*.{function.__name__}-*.nbi")))
