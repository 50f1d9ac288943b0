"""Compile numeric loops with Numba; the machine code is cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called; its type stays that of the function.

    Without fastmath, results have the bits that plain Python (NUMBA_DISABLE_JIT=1) gives, except that a
    division by zero gives NumPy's result instead of an error: the check alone takes most of the time of a
    short function. The interpreter lock is released, so threads may run it in parallel. A function whose
    name begins with an underscore is compiled into its callers, and must create no array: it counts no
    references to arrays, which would take two thirds of the time of the serving loops.
    """
    inner = {"forceinline": True, "_nrt": False} if function.__name__.startswith("_") else {}
    decorate = partial(njit, nogil=True, error_model="numpy", **inner)
    try:
        return cast(Function, decorate(cache=True)(function))
    except RuntimeError:  # no folder that a cache could be written to, as in a read-only container
        return cast(Function, decorate()(function))


def is_cold(function: Callable[..., object]) -> bool:
    """Return whether the first call of a compiled function has to compile it, which takes seconds."""
    stats = getattr(function, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT=1
        return False
    return not (stats.cache_path and any(Path(stats.cache_path).glob(f"*.{function.__name__}-*.nbi")))
